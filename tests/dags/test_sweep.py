"""What the sweep ends, whom it tells, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pod_api import NAMESPACE, PodApi

from fedrisk_airflow.step_outcome import this_airflow
from sweep import sweep_pods
from tasks.federation.server_status import is_ended
from tasks.launch.pods import AIRFLOW, DAG, FOLDER, INDEX, LOST_AFTER, MARKS, RUN, TASK
from tasks.settings import Settings


class Asked:
    """Airflow as a task asks it: the runs that are at work and their tasks' states."""

    def __init__(self, **runs: dict[str, str | None]) -> None:
        self.runs = runs

    def get_dr_count(self, *, run_ids: list[str], **_: Any) -> int:
        return int(run_ids[0] in self.runs)

    def get_task_states(
        self, *, task_ids: list[str], run_ids: list[str], **_: Any
    ) -> dict[str, dict[str, str | None]]:
        found = self.runs.get(run_ids[0], {})
        return {run_ids[0]: {t: found[t] for t in task_ids if t in found}}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PodApi]:
    api = PodApi(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(api.config))
    yield api
    api.away()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    store = f"file://{tmp_path / 'store'}"
    return Settings(home=tmp_path, launcher="kubernetes", store=store, namespace=NAMESPACE)


def put(api: PodApi, name: str, run: str, task: str, folder: str = "") -> dict[str, Any]:
    """A pod of this Airflow that is no longer young."""
    pod = {
        "metadata": {
            "name": name,
            "labels": {**MARKS, AIRFLOW: this_airflow()},
            "annotations": {
                DAG: "retrain_stroke", RUN: run, TASK: task, INDEX: "-1", FOLDER: folder
            },
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "status": {"phase": "Running"},
    }  # fmt: skip
    api.pods[name] = pod
    return pod


def test_pods_of_runs_and_tasks_that_have_ended_are_ended(api: PodApi, settings: Settings) -> None:
    put(api, "no-run", "gone", "champion")
    put(api, "no-task", "here", "deal")
    put(api, "at-work", "here", "champion")
    assert sweep_pods(settings, Asked(here={"champion": "deferred", "deal": "failed"})) == 2
    assert set(api.pods) == {"at-work"}


@pytest.mark.parametrize(
    ("state", "told"),
    [("failed", True), ("upstream_failed", True), ("deferred", False), (None, False)],
)
def test_hospitals_are_told_that_their_server_was_marked_or_cannot_start(
    api: PodApi, settings: Settings, state: str | None, told: bool
) -> None:
    put(api, "waits", "scheduled__1", "join", "stroke-scheduled__1")
    asked = Asked(scheduled__1={"join": "deferred", "federated": state})
    assert sweep_pods(settings, asked) == 0
    assert is_ended(settings, "stroke-scheduled__1") is told
    assert set(api.pods) == {"waits"}


def test_a_pod_on_a_lost_node_is_forgotten_so_that_its_task_goes_on(
    api: PodApi, settings: Settings
) -> None:
    api.lose(put(api, "lost", "here", "champion"), LOST_AFTER + 5)
    api.lose(put(api, "ending", "here", "champion"), LOST_AFTER - 30)
    assert sweep_pods(settings, Asked(here={"champion": "deferred"})) == 1
    assert set(api.pods) == {"ending"}
