"""A run's summary: the table of models, gates and champion, and the JSON object of ``--json``."""

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
class RunSummary:
    """The summary of a finished run.

    Attributes:
        code: Exit code: the failed step's, or 0.
        message: What failed, why, and where its log is; empty after success.
        result: The JSON object of ``--json``.
    """

    code: int
    message: str
    result: dict[str, Any]


def summarize_run(plan: Plan, run: RunFolder, state: str, start: float, total: float) -> RunSummary:
    """Collect a run's results from its manifests.

    Args:
        plan: Its plan.
        run: Its folder.
        state: Its final state in Airflow.
        start: Start-up time of Airflow in seconds.
        total: Wall-clock time of the whole command in seconds.
    """
    endings = read_endings(run)
    evaluated, promoted = run.find("evaluate"), run.find("promote")
    # A lost hospital does not fail a promoted run: its round events name it.
    relevant = [each for each in endings if each.step != "join" or promoted is None]
    failed = failed_step(run, relevant)
    code, message = int(ExitCode.DONE), ""
    # To Airflow a run whose last tasks were all skipped is a success.
    if state != "success" or failed is not None or promoted is None:
        code, message = _failure(run, failed or next((e for e in relevant if e.code), None))
    seconds: dict[str, float] = {"airflow": round(start, 3)}
    for each in endings:
        # Hospitals run in parallel, so the longest counts.
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
    return RunSummary(code=code, message=message, result=result)


def failed_step(run: RunFolder, endings: Iterable[Ending]) -> Ending | None:
    """The step that failed, or None.

    A step with a manifest, which is written last, is done, whatever an earlier try recorded. A
    hospital's ``join`` fails when the server does and may record so first: it is named only where
    nothing else failed.

    Args:
        run: The run's folder.
        endings: The records of its steps in order of their end.
    """
    failed = [each for each in endings if each.code and not run.find(each.step, each.hospital)]
    return min(failed, key=lambda each: each.step == "join", default=None)


def _failure(run: RunFolder, failed: Ending | None) -> tuple[int, str]:
    if failed is None:
        return int(ExitCode.FAILED), (
            f"run {run.run} ended in Airflow and no step recorded why; see the logs of its tasks "
            "with `fedrisk up`."
        )
    of = f" of {failed.hospital}" if failed.hospital else ""
    return failed.code, f"step {failed.step}{of}: {failed.message}\nIts log is {failed.log}"


def show(summary: RunSummary, say: Callable[[str], None]) -> None:
    """Print the table of models, the gates, the champion and the report's path."""
    result = summary.result
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
        state = "passed" if gate["passed"] else "FAILED"
        if not gate.get("applicable", True):
            state = "n/a"
        say(f"gate {gate['name']:<26} {state:<7} {gate.get('detail', '')}")
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
