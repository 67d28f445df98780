"""Whether a hospital's pod is made, from what Airflow says of the steps that its server needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedrisk_airflow.kubernetes import server_wait
from fedrisk_airflow.kubernetes.pod_spec import PodOf
from fedrisk_airflow.kubernetes.server_wait import no_server_reason
from tasks.federation.server_status import is_ended, mark_ended
from tasks.settings import Settings

RUN = "r1"
JOIN = PodOf("join", "hospital-1", standing=False)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(server_wait, "SETTLED", 0.0)
    store = f"file://{tmp_path / 'store'}"
    return Settings(home=tmp_path, launcher="kubernetes", store=store)


class Asked:
    """Airflow as a task asks it: the states of its run's tasks, mapped ones with their index."""

    dag_id, run_id = "retrain_stroke", RUN

    def __init__(self, **states: str | None) -> None:
        self.states = states

    def get_task_states(
        self, *, dag_id: str, task_ids: list[str], run_ids: list[str]
    ) -> dict[str, dict[str, str | None]]:
        assert (dag_id, run_ids) == (self.dag_id, [RUN])
        return {
            RUN: {
                name: state
                for name, state in self.states.items()
                if name in task_ids or name.rpartition("_")[0] in task_ids
            }
        }


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("server", [None, "up_for_retry"])
@pytest.mark.parametrize("state", ["failed", "upstream_failed", "skipped"])
def test_a_hospital_does_not_wait_for_a_server_that_another_hospitals_loss_keeps_away(
    settings: Settings, state: str, server: str | None, marked: bool
) -> None:
    if marked:
        mark_ended(settings, RUN)
    asked = Asked(federated=server, features_0="success", features_2=state)
    why = no_server_reason(JOIN, settings, RUN, asked)
    assert f"the task features_2, without which federated does not start, is {state}" in str(why)
    assert is_ended(settings, RUN) is marked


def test_the_step_that_failed_is_named_and_not_those_that_failed_with_it(
    settings: Settings,
) -> None:
    states = {"features_2": "upstream_failed", "validate_2": "failed", "collect_2": "success"}
    why = no_server_reason(JOIN, settings, RUN, Asked(federated=None, **states))
    assert "validate_2" in str(why)


@pytest.mark.parametrize("state", [None, "running", "deferred", "up_for_retry", "success"])
def test_a_hospital_waits_for_a_server_that_still_may_come(
    settings: Settings, state: str | None
) -> None:
    mark_ended(settings, RUN)
    # A hospital that is lost later, or that its own baseline fails, costs the others nothing.
    asked = Asked(federated=None, collect_2=state, local_1="failed", join_1="skipped")
    assert no_server_reason(JOIN, settings, RUN, asked) is None
    assert not is_ended(settings, RUN)


@pytest.mark.parametrize("server", ["scheduled", "queued", "running", "deferred", "success"])
def test_a_server_that_has_been_let_in_needs_no_step_any_more(
    settings: Settings, server: str
) -> None:
    mark_ended(settings, RUN)
    asked = Asked(federated=server, collect_2="failed")
    assert no_server_reason(JOIN, settings, RUN, asked) is None
    assert not is_ended(settings, RUN)


ASK = """
from types import SimpleNamespace as Row
from airflow.api_fastapi.execution_api.routes.task_instances import get_task_instance_states
rows = [
    Row(run_id="r", task_id="collect", map_index=2, state="failed"),
    Row(run_id="r", task_id="federated", map_index=-1, state=None),
]
session = Row(scalars=lambda query: Row(all=lambda: rows))
print("ANSWER", get_task_instance_states("d", session, None, task_ids=["collect", "federated"],
    map_index=None, task_group_id=None, logical_dates=None, run_ids=["r"]).task_states["r"])
"""


@pytest.mark.slow
def test_airflow_names_a_mapped_task_by_its_index(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert "ANSWER {'collect_2': 'failed', 'federated': None}" in done.stdout, done.stderr[-2000:]
