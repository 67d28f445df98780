"""Follow a run: each step as it starts and ends, each round with its figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.run.ending import read_endings
from tasks.run.folder import RunFolder
from tasks.run.stored_run import open_run
from tasks.telemetry.round_event import RoundEvent, read_events

if TYPE_CHECKING:
    from tasks.local_airflow.server import Running
    from tasks.run.plan import Plan

POLL = 0.5
SPARE = 300.0
"""Seconds beyond a DAG's own limit after which its Airflow is taken for one that keeps none."""
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


@dataclass
class Progress:
    """What has been shown of a run.

    Attributes:
        run: The run's folder.
        say: Prints one line.
        hospitals: Those of the run, in the order in which Airflow maps over them.
        started: Monotonic time of the start.
    """

    run: RunFolder
    say: Callable[[str], None]
    hospitals: Sequence[str] = ()
    started: float = field(default_factory=time.monotonic)
    _shown: dict[str, str] = field(default_factory=dict)
    _rounds: int = 0

    def show(self, tasks: list[dict[str, Any]]) -> None:
        """Print what is new.

        Args:
            tasks: Airflow's task instances of the run.
        """
        self._show_rounds()
        endings = {_key(each.step, each.hospital): each for each in read_endings(self.run)}
        for task in sorted(tasks, key=lambda each: each["start_date"] or "~"):
            name, state = self._name(task), task["state"] or "none"
            before = self._shown.get(name)
            if before == state or (before is None and state not in {"running", *ENDED}):
                continue
            self._shown[name] = state
            ending = endings.get(name)
            if state == "running":
                again = task.get("try_number") or 1
                self._line(name, "started" if again == 1 else f"started (try {again})")
            elif state == "success":
                took = ending.seconds if ending else float(task["duration"] or 0)
                self._line(name, f"done in {took:.1f} s")
            elif state == "up_for_retry" and ending is not None:
                self._line(name, f"will be tried again: {ending.message.splitlines()[0]}")
            elif state == "failed":
                self._line(name, "FAILED")
            elif state == "skipped":
                self._line(name, "skipped")

    def _show_rounds(self) -> None:
        path = self.run.refresh("files/federated/rounds.jsonl")
        events = read_events(path)
        for event in events[self._rounds :]:
            self._line("round", _round(event))
        self._rounds = len(events)

    def _name(self, task: dict[str, Any]) -> str:
        """A task as people call it: ``features hospital-1``."""
        index = task.get("map_index", -1)
        known = 0 <= index < len(self.hospitals)
        return _key(str(task["task_id"]), self.hospitals[index] if known else None)

    def _line(self, name: str, text: str) -> None:
        self.say(f"[{time.monotonic() - self.started:6.1f} s] {name:<24} {text}")


def follow(
    running: Running,
    dag: str,
    airflow_run: str,
    plan: Plan,
    limit: float,
    say: Callable[[str], None],
) -> str:
    """Wait for a run's end and show it.

    Args:
        running: The Airflow that runs it.
        dag: The DAG's id.
        airflow_run: The run's id in Airflow.
        plan: The run's plan.
        limit: Seconds that the DAG gives a run (``tasks.run.limits.run_limit``).
        say: Prints one line.

    Returns:
        Its last state: success or failed.

    Raises:
        AirflowError: It did not end in the time that the DAG gives it.
        ProcessDied: A process of Airflow has ended.
    """
    from tasks.local_airflow.api_client import AirflowError

    # The DAG's own limit comes first; this one is for an Airflow that does not keep it.
    limit += SPARE
    deadline = time.monotonic() + limit
    progress = Progress(open_run(running.home.settings, plan.run), say, plan.hospitals)
    while time.monotonic() < deadline:
        running.check()
        state = running.airflow.state(dag, airflow_run)
        progress.show(running.airflow.tasks(dag, airflow_run))
        if state in ("success", "failed"):
            return state
        time.sleep(POLL)
    raise AirflowError(f"run {plan.run} has not ended within {limit:g} s.")


def _key(step: str, hospital: str | None) -> str:
    return step if hospital is None else f"{step} {hospital}"


def _round(event: RoundEvent) -> str:
    parts = [f"{event.round} of {event.rounds}"]
    if event.validation_auroc is not None:
        parts.append(f"validation AUROC {event.validation_auroc:.4f}")
    if event.validation_loss is not None:
        parts.append(f"loss {event.validation_loss:.4f}")
    parts.append(f"{len(event.replied)} of {len(event.selected)} hospitals")
    parts.append(f"{event.seconds:.1f} s")
    parts += [f"lost {name}: {why}" for name, why in event.lost.items()]
    return ", ".join(parts + ([event.note] if event.note else []))
