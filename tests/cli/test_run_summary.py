"""A run's summary: exit code, message, JSON and progress."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.cli import follow as progress
from tasks.cli.follow import RunView, follow
from tasks.cli.run_summary import show, summarize_run
from tasks.files import write_atomically
from tasks.local_airflow.api_client import AirflowError
from tasks.run.ending import Ending
from tasks.run.folder import RunFolder
from tasks.run.manifest import Manifest
from tasks.run.plan import Plan, Request, make_plan
from tasks.settings import Settings
from tasks.telemetry.round_event import RoundEvent, append_event

SCORES = {"auroc": 0.84, "auroc_ci": [0.8, 0.87], "auroc_within": 0.79, "brier": 0.041}
GATE = {"name": "spread", "passed": False, "value": 0.2, "limit": 0.1, "detail": "Too wide."}


@pytest.fixture
def plan(tmp_path: Path, checkout: Path) -> Plan:
    settings = Settings(home=tmp_path, studies=checkout / "dags" / "studies")
    return make_plan(Request(study="stroke"), "r", settings)


@pytest.fixture
def run(tmp_path: Path, plan: Plan) -> RunFolder:
    return RunFolder(tmp_path / "runs", plan.run)


def end(run: RunFolder, step: str, code: int = 0, message: str = "", hospital: str | None = None):
    ending = Ending(
        step=step, hospital=hospital, code=code, message=message, log="/log", seconds=2.5
    )
    key = step if hospital is None else f"{step}.{hospital}"
    write_atomically(run.path / "ends" / f"{key}.json", ending.model_dump_json().encode())


def leave(run: RunFolder, step: str, figures: dict[str, Any], **more: Any) -> None:
    run.write(Manifest(step=step, study="stroke", run=run.run, figures=figures, **more))


def test_a_failed_step_gives_its_exit_code_message_and_log(plan: Plan, run: RunFolder) -> None:
    end(run, "plan")
    end(run, "validate", 2, "column bmi is missing", "hospital-2")
    summary = summarize_run(plan, run, "failed", 5.0, 9.0)
    assert summary.code == 2
    assert "validate of hospital-2: column bmi is missing" in summary.message
    assert "/log" in summary.message
    assert summary.result["exit_code"] == 2


def test_a_run_that_fails_outside_a_step_is_an_internal_error(plan: Plan, run: RunFolder) -> None:
    assert summarize_run(plan, run, "failed", 5.0, 9.0).code == 1


def test_a_success_of_airflow_without_promotion_is_a_failure(plan: Plan, run: RunFolder) -> None:
    end(run, "plan")
    assert summarize_run(plan, run, "success", 5.0, 9.0).code == 1


def test_a_step_that_is_done_has_not_failed_despite_an_earlier_try(
    plan: Plan, run: RunFolder
) -> None:
    end(run, "reference", 4, "the pod is gone")
    leave(run, "reference", {})
    leave(run, "evaluate", {"federated": SCORES})
    leave(run, "promote", {"gates": [], "model_version": 4, "champion": True})
    summary = summarize_run(plan, run, "success", 5.0, 9.0)
    assert (summary.code, summary.message) == (0, "")


def test_the_server_is_named_although_its_hospitals_recorded_its_end_first(
    plan: Plan, run: RunFolder
) -> None:
    end(run, "join", 3, "the server has ended", "hospital-1")
    end(run, "federated", 2, "the checkpoint is of another study")
    summary = summarize_run(plan, run, "failed", 5.0, 9.0)
    assert summary.code == 2
    assert "another study" in summary.message


def test_a_failed_run_names_a_step_although_it_has_a_manifest(plan: Plan, run: RunFolder) -> None:
    leave(run, "reference", {})
    end(run, "reference", 4, "the store was away")
    summary = summarize_run(plan, run, "failed", 5.0, 9.0)
    assert summary.code == 4
    assert "the store was away" in summary.message


def test_a_failed_gate_still_shows_results_and_gates(plan: Plan, run: RunFolder) -> None:
    leave(run, "evaluate", {"federated": SCORES, "central": SCORES, "local": {"h": SCORES}})
    gates = run.path / "files" / "promote" / "gates.json"
    write_atomically(gates, json.dumps([GATE]).encode())
    end(run, "promote", 3, "Too wide.")
    summary = summarize_run(plan, run, "failed", 5.0, 9.0)
    assert summary.code == 3
    assert summary.result["champion"] is False
    assert summary.result["gates"] == [GATE]
    lines: list[str] = []
    show(summary, lines.append)
    text = "\n".join(lines)
    for expected in ("centralized", "local h", "federated", "0.8400", "0.800 to 0.870", "FAILED"):
        assert expected in text


def test_a_champion_is_told_with_its_version_and_report(plan: Plan, run: RunFolder) -> None:
    leave(run, "evaluate", {"federated": SCORES}, files={"report": "files/evaluate/report.html"})
    leave(run, "promote", {"gates": [], "model_version": 4, "champion": True})
    for hospital, _ in (("hospital-1", 1), ("hospital-2", 2)):
        end(run, "collect", hospital=hospital)
    summary = summarize_run(plan, run, "success", 5.0, 9.0)
    assert (summary.code, summary.message) == (0, "")
    assert summary.result["model_version"] == 4
    assert summary.result["report"] == str(run.path / "files" / "evaluate" / "report.html")
    assert summary.result["seconds"] == {"airflow": 5.0, "collect": 2.5, "total": 9.0}
    lines: list[str] = []
    show(summary, lines.append)
    assert "champion: version 4" in "\n".join(lines)


def task(name: str, state: str | None, index: int = -1) -> dict[str, Any]:
    return {
        "task_id": name, "map_index": index, "state": state,
        "start_date": None, "duration": 1.0, "try_number": 1,
    }  # fmt: skip


def test_progress_tells_each_change_once_and_names_the_hospital(run: RunFolder) -> None:
    lines: list[str] = []
    view = RunView(run, lines.append, ("hospital-1", "hospital-2"))
    view.show([task("collect", "running", 1), task("score", None)])
    view.show([task("collect", "running", 1)])
    end(run, "collect", hospital="hospital-2")
    view.show([task("collect", "success", 1), task("central", "skipped")])
    assert len(lines) == 3
    assert "collect hospital-2" in lines[0]
    assert "done in 2.5 s" in lines[1]
    assert "skipped" in lines[2]


def test_progress_shows_rounds_with_their_metrics(run: RunFolder) -> None:
    lines: list[str] = []
    view = RunView(run, lines.append)
    path = run.folder("federated") / "rounds.jsonl"
    for number in (1, 2):
        event = RoundEvent(
            round=number, rounds=9, seconds=1.5, selected=["a", "b"], replied=["a"],
            lost={"b": "no reply"}, validation_auroc=0.81234, validation_loss=0.2,
            learning_rate=0.1,
        )  # fmt: skip
        append_event(path, event)
        view.show([])
    assert len(lines) == 2
    assert "2 of 9, validation AUROC 0.8123, loss 0.2000, 1 of 2 hospitals" in lines[1]
    assert "lost b: no reply" in lines[1]


class Endless:
    """An Airflow that enforces no limit."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def check(self) -> None: ...

    def state(self, dag: str, run: str) -> str:
        self.asked.add(run)
        return "running"

    def tasks(self, dag: str, run: str) -> list[Any]:
        return []


def test_a_run_is_followed_longer_than_its_dag_allows_and_by_airflows_id(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow = Endless()
    home = SimpleNamespace(settings=Settings(home=tmp_path))
    running: Any = SimpleNamespace(airflow=airflow, check=airflow.check, home=home)
    clock = iter(range(0, 10**6, 100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(progress.time, "sleep", lambda _: None)
    with pytest.raises(AirflowError, match=r"run r has not ended within 24480 s"):
        follow(running, "retrain_stroke", "manual__1", plan, 24_180, print)
    assert next(clock) > 24_180
    assert airflow.asked == {"manual__1"}
