"""How a run ended: the table, the gates, the champion, and the one JSON object of ``--json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tasks.errors import ExitCode
from tasks.run.ending import Ending, read_endings
from tasks.run.folder import RunFolder
from tasks.run.plan import Plan


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        code: Exit code: the failed step's, or 0.
        message: What failed, why, and where its log is; empty after success.
        result: What ``--json`` prints.
    """

    code: int
    message: str
    result: dict[str, Any]


def outcome_of(plan: Plan, run: RunFolder, state: str, start: float, total: float) -> Outcome:
    """Gather what a run has left.

    Args:
        plan: Its plan.
        run: Its folder.
        state: Airflow's last state of it.
        start: Seconds that Airflow took to start.
        total: Wall-clock seconds of the whole command.
    """
    endings = read_endings(run)
    evaluated, promoted = run.find("evaluate"), run.find("promote")
    # A hospital that was lost has cost its share of the training, and is named among the rounds.
    vital = [each for each in endings if each.step != "join" or promoted is None]
    failed = failed_step(run, vital)
    code, message = int(ExitCode.DONE), ""
    # Airflow calls a run with nothing but skipped tasks at its end a success.
    if state != "success" or failed is not None or promoted is None:
        code, message = _failure(run, failed or next((e for e in vital if e.code), None))
    seconds: dict[str, float] = {"airflow": round(start, 3)}
    for each in endings:
        # Hospitals work side by side, so the longest counts.
        seconds[each.step] = max(seconds.get(each.step, 0.0), each.seconds)
    seconds["total"] = round(total, 3)
    promotion: dict[str, Any] = dict(promoted.figures) if promoted else {"champion": False}
    gates = run.fetch("files/promote/gates.json")
    if "gates" not in promotion and gates.exists():
        found = json.loads(gates.read_text(encoding="utf-8"))
        promotion |= {"gates": found["gates"]} if isinstance(found, dict) else {"gates": found}
    figures: dict[str, Any] = dict(evaluated.figures) if evaluated else {}
    report = evaluated.files.get("report") if evaluated else None
    result = {
        "run": plan.run,
        "study": plan.study.name,
        "source": plan.source_name,
        **figures,
        "round_events": figures.get("history", []),
        "gates": promotion.get("gates", []),
        "model_version": promotion.get("model_version"),
        "champion": bool(promotion.get("champion")),
        "registry_champion": figures.get("champion"),
        "report": str(run.path / report) if report else None,
        "seconds": seconds,
        "exit_code": code,
        "error": message or None,
    }
    return Outcome(code=code, message=message, result=result)


def failed_step(run: RunFolder, endings: Iterable[Ending]) -> Ending | None:
    """The step that has failed, if one has.

    A step that has left its manifest, which is written last, is done, whatever an earlier try has
    told. A hospital's ``join`` ends when the server has, and may tell so first: it is named only
    where nothing else has failed.

    Args:
        run: The run's folder.
        endings: How its steps ended, the first to end first.
    """
    failed = [each for each in endings if each.code and not run.find(each.step, each.hospital)]
    return min(failed, key=lambda each: each.step == "join", default=None)


def _failure(run: RunFolder, failed: Ending | None) -> tuple[int, str]:
    if failed is None:
        return int(ExitCode.FAILED), (
            f"run {run.run} ended in Airflow and no step told why; look at the logs of its tasks "
            "with `fedrisk up`."
        )
    of = f" of {failed.hospital}" if failed.hospital else ""
    return failed.code, f"step {failed.step}{of}: {failed.message}\nIts log is {failed.log}"


def show(outcome: Outcome, say: Callable[[str], None]) -> None:
    """Print the table of models, the gates, the champion and the report."""
    result = outcome.result
    rows = [
        (name, result[key])
        for name, key in (
            ("centralized", "central"),
            ("federated", "federated"),
            ("reference", "reference"),
            ("published", "published"),
        )
        if result.get(key)
    ]
    rows[1:1] = [(f"local {name}", figures) for name, figures in result.get("local", {}).items()]
    if rows:
        say("")
        say(f"{'model':<24} {'AUROC':>7}  {'interval':<15} {'within':>7} {'Brier':>7}")
    for name, figures in rows:
        say(
            f"{name:<24} {_number(figures.get('auroc'))}  {_interval(figures.get('auroc_ci')):<15} "
            f"{_number(figures.get('auroc_within'))} {_number(figures.get('brier'))}"
        )
    if result["gates"]:
        say("")
    for gate in result["gates"]:
        verdict = "passed" if gate["passed"] else "FAILED"
        if not gate.get("applicable", True):
            verdict = "n/a"
        say(f"gate {gate['name']:<26} {verdict:<7} {gate.get('detail', '')}")
    say("")
    if result["champion"]:
        say(f"champion: version {result['model_version']} of fedrisk-{result['study']}")
    if result["report"]:
        say(f"report:   {result['report']}")
    seconds = result["seconds"]
    say(f"time:     {seconds['total']:.1f} s, of which Airflow's start {seconds['airflow']:.1f} s")


def _number(value: float | None) -> str:
    return f"{value:7.4f}" if value is not None else f"{'-':>7}"


def _interval(interval: tuple[float, float] | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "-"
