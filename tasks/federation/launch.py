"""The step ``federated`` on one machine: a SuperLink and a SuperNode a hospital as processes.

Each process is told what its part needs and no more: a hospital's own table, key and name; the
server no table at all. TLS and node keys are on, as between machines.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from collections.abc import Iterator

from tasks import errors
from tasks.errors import FederationError, FedriskError
from tasks.federation.closing import MODEL, Outcome
from tasks.federation.deployment import Deployment, deploy
from tasks.federation.processes import Processes, tail
from tasks.manifest import write_atomically
from tasks.step import Context, Result
from tasks.telemetry.live import MlflowRounds, RoundSink
from tasks.telemetry.round_event import RoundEvent, read_events

POLL = 0.2
SPARE = 60.0
"""Seconds beyond the run's deadline after which the server itself is taken for hanging."""


def federated(context: Context) -> Result:
    """Train one model over all hospitals of the run.

    A second call with the same run goes on after the last checkpoint.

    Raises:
        FederationError: The federation could not start, or too few hospitals answered.
        DataError: A hospital's table or the checkpoint is not of this study.
    """
    folder = context.run.folder("federated")
    processes = Processes()
    sink = MlflowRounds(context.plan, context.settings)
    with _interruptible():
        try:
            deployment = deploy(context, folder, processes)
            outcome = _watch(context, deployment, processes, sink)
        finally:
            processes.end()
            # Keys, and the path of every hospital's table: of no use after the run.
            shutil.rmtree(folder / "private", ignore_errors=True)
    figures = outcome.model_dump(mode="json", exclude={"notes"})
    events = read_events(folder / "rounds.jsonl")
    notes = [event.note for event in events if event.note.startswith(("resumed", "tried"))]
    return Result(
        files={
            "model": context.run.relative(folder / MODEL),
            "rounds": context.run.relative(folder / "rounds.jsonl"),
        },
        figures=figures,
        notes=[*notes, *outcome.notes, *sink.close()],
    )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the step as Ctrl-C does: by an exception, so that everything is put away."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not in the main thread: whoever started the thread sees to signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _watch(
    context: Context, deployment: Deployment, processes: Processes, sink: RoundSink
) -> Outcome:
    """Print rounds as they come and see to dead processes, until the server has ended."""
    plan = context.study.federation
    end = time.monotonic() + plan.deadlines.ready + plan.deadlines.run + SPARE
    rounds, told, gone = (
        deployment.folder / "rounds.jsonl",
        deployment.known_rounds,
        dict[str, str](),
    )
    while True:
        done = deployment.outcome.exists()
        for event in read_events(rounds):
            if event.round > told:
                told = event.round
                print(told_round(event), flush=True)
                sink.log_round(event)
        if done:
            return Outcome.model_validate_json(deployment.outcome.read_bytes())
        if deployment.failure.exists():
            raise _failure(deployment)
        ended = processes.ended()
        for name, code in ended.items():
            if name in context.plan.hospitals and name not in gone:
                gone[name] = f"its SuperNode ended with code {code}"
                print(f"{name}: {gone[name]}; its log is {deployment.log(name)}", flush=True)
                write_atomically(deployment.gone, json.dumps(gone).encode())
        for name in ("superlink", "control"):
            if ended.get(name, 0) != 0 or (name == "superlink" and name in ended):
                if deployment.failure.exists():
                    raise _failure(deployment)
                raise FederationError(
                    f"the federation's {name} ended with code {ended[name]}; its log "
                    f"{deployment.log(name)} ends:\n{tail(deployment.log(name))}"
                )
        if time.monotonic() > end:
            raise FederationError(
                f"the server has not ended {SPARE:g} s after the run's deadline; its log "
                f"{deployment.log('superlink')} ends:\n{tail(deployment.log('superlink'))}"
            )
        time.sleep(POLL)


def _failure(deployment: Deployment) -> FedriskError:
    failure = json.loads(deployment.failure.read_bytes())
    kind = getattr(errors, failure["kind"], None)
    if isinstance(kind, type) and issubclass(kind, FedriskError):
        return kind(failure["message"])
    return FedriskError(
        f"{failure['message']}; the log {deployment.log('superlink')} ends:\n"
        f"{tail(deployment.log('superlink'))}"
    )


def told_round(event: RoundEvent) -> str:
    """One line about a round, for the log.

    Args:
        event: The round.
    """

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    note = f"; {event.note}" if event.note else ""
    return (
        f"round {event.round}/{event.rounds}: validation loss {number(event.validation_loss)}, "
        f"AUROC {number(event.validation_auroc)}, {len(event.replied)} of {len(event.selected)} "
        f"hospitals, {event.seconds:.1f} s{note}"
    )
