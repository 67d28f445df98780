"""What a step's operator does where its pod, the cluster, the store or Airflow itself fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from pod_api import NAMESPACE, PodApi

from fedrisk_airflow.kubernetes import api_errors, operator, server_wait
from fedrisk_airflow.kubernetes.operator import PodStep
from fedrisk_airflow.kubernetes.recorded_step import on_failure
from tasks import objects
from tasks.errors import ExitCode
from tasks.federation.server_status import is_ended, mark_ended
from tasks.run.ending import Ending, read_endings
from tasks.run.manifest import Manifest
from tasks.run.plan import Request, make_plan
from tasks.run.stored_run import open_run
from tasks.settings import Settings

RUN = "r1"


class Lab:
    """One step of one run, its cluster and its store."""

    def __init__(self, root: Path, checkout: Path) -> None:
        self.api = PodApi(root)
        self.settings = Settings(
            home=root / "home",
            studies=checkout / "dags" / "studies",
            launcher="kubernetes",
            store=f"file://{root / 'store'}",
            namespace=NAMESPACE,
            images="nowhere/{image}:1",
        )
        self.states: dict[str, str | None] = {}
        make_plan(Request(study="stroke"), RUN, self.settings)

    @property
    def folder(self) -> Any:
        return open_run(self.settings, RUN)

    def step(self, name: str = "champion", hospital: str | None = None, **given: Any) -> PodStep:
        given = {"study": "stroke", "execution_timeout": timedelta(hours=1), **given}
        return PodStep(task_id=name, step=name, hospital=hospital, **given)

    def context(self, task: PodStep, number: int = 1, tries: int = 2, **more: Any) -> Any:
        ti = SimpleNamespace(
            dag_id="retrain_stroke", task_id=task.task_id, run_id=RUN, map_index=-1,
            try_number=number, max_tries=tries, start_date=datetime.now(UTC),
            xcom_push=lambda **_: None,
            get_task_states=lambda **_: {RUN: self.states} if self.states else {},
        )  # fmt: skip
        return {"ti": ti, "run_id": RUN, "dag": SimpleNamespace(), "task": task, **more}

    def start(self, task: PodStep, **given: Any) -> dict[str, Any]:
        """Execute a step until it waits, and return its pod."""
        before = set(self.api.pods)
        with pytest.raises(TaskDeferred):
            task.execute(self.context(task, **given))
        (new,) = set(self.api.pods) - before
        self.api.run(self.api.pods[new])
        return self.api.pods[new]

    def event(self, status: str, **more: Any) -> dict[str, Any]:
        name = next(iter(self.api.pods), "gone")
        return {"status": status, "name": name, "namespace": NAMESPACE, "message": "m", **more}

    def resume(self, task: PodStep, event: dict[str, Any], **given: Any) -> None:
        """Go on as a fresh process does after the wait."""
        given = self.context(task, **given)
        task.resume_execution("trigger_reentry", {"event": event}, given)

    def ending(self) -> Ending:
        (found,) = read_endings(self.folder)
        return found

    def done(self, step: str, hospital: str | None = None) -> None:
        self.folder.write(Manifest(step=step, study="stroke", run=RUN, hospital=hospital))


@pytest.fixture
def lab(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    lab = Lab(tmp_path, checkout)
    monkeypatch.setenv("KUBECONFIG", str(lab.api.config))
    monkeypatch.setattr(Settings, "from_environment", lambda *_: lab.settings)
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    monkeypatch.setattr(api_errors, "PAUSE", 0.05)
    monkeypatch.setattr(server_wait, "SETTLED", 0.0)
    for name in ("FIRST_CALL", "LOOK"):
        monkeypatch.setattr(operator, name, 0.4)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    yield lab
    lab.api.away()


def test_a_pod_that_ended_well_has_done_its_step(lab: Lab) -> None:
    lab.api.end(lab.start(lab.step()), 0, "step champion ends")
    lab.done("champion")
    lab.resume(lab.step(), lab.event("success"))
    assert (lab.ending().code, lab.api.pods) == (0, {})
    assert Path(lab.ending().log).read_text() == "step champion ends\n"


@pytest.mark.parametrize("away", ["closed", "refusing"])
def test_a_cluster_that_is_away_is_waited_for(lab: Lab, away: str) -> None:
    pod = lab.start(lab.step())
    event = lab.event("error")
    if away == "closed":
        lab.api.away()
    else:
        lab.api.status = 503
    for _ in range(4):
        with pytest.raises(TaskDeferred) as wait:
            lab.resume(lab.step(), event)
        event = {**event, **wait.value.trigger.trigger_kwargs}
        assert wait.value.trigger.pod_name == pod["metadata"]["name"]
    if away == "closed":
        lab.api.back()
    lab.api.status = 0
    with pytest.raises(TaskDeferred):
        lab.resume(lab.step(), event)
    assert read_endings(lab.folder) == []
    lab.api.end(pod, 0)
    lab.done("champion")
    lab.resume(lab.step(), lab.event("success"))
    assert lab.ending().code == 0


def test_a_cluster_that_stays_away_is_given_up_and_named(lab: Lab) -> None:
    lab.start(lab.step())
    event = lab.event("error", _watched_again=time.time() - 5, _trouble_since=time.time() - 3600)
    lab.api.status = 503
    with pytest.raises(AirflowException, match="Kubernetes does not answer"):
        lab.resume(lab.step(), event)
    assert lab.ending().code == ExitCode.TRANSIENT
    assert "pod is gone" not in lab.ending().message


def test_a_pod_that_can_never_be_watched_is_given_up_at_last_and_ended(lab: Lab) -> None:
    lab.start(lab.step())
    event = lab.event("error", _watched_again=time.time() - 5, _trouble_since=time.time() - 3600)
    event["message"] = "(503)\nReason: Unavailable\nHTTP response headers: <secret>"
    with pytest.raises(AirflowException, match=r"to its end: \(503\) Reason: Unavailable$"):
        lab.resume(lab.step(), event)
    assert (lab.ending().code, lab.api.pods) == (ExitCode.TRANSIENT, {})


def test_the_providers_trigger_hands_back_since_when_there_was_trouble(lab: Lab) -> None:
    began = time.time()
    lab.start(lab.step())
    with pytest.raises(TaskDeferred) as wait:
        lab.resume(lab.step(), lab.event("error"))
    lab.api.pods.clear()

    async def told() -> dict[str, Any]:
        (only,) = [event.payload async for event in wait.value.trigger.run()]
        return only

    event = asyncio.run(told())
    assert event["status"] == "error"
    assert began <= event["_trouble_since"] <= event["_watched_again"] <= time.time()


def test_an_image_that_cannot_be_pulled_ends_the_step_at_once(lab: Lab) -> None:
    task = lab.step()
    with pytest.raises(TaskDeferred) as wait:
        task.execute(lab.context(task))
    lab.api.refuse_image(lab.api.only, "no such host")

    async def told() -> dict[str, Any]:
        (only,) = [event.payload async for event in wait.value.trigger.run()]
        return only

    event = asyncio.run(told())
    # The word for a pod that cannot be watched, too.
    assert event["status"] == "error"
    with pytest.raises(AirflowException, match="cannot be pulled"):
        lab.resume(lab.step(), event)
    assert (lab.ending().code, lab.api.pods) == (ExitCode.FAILED, {})


def test_trouble_long_ago_does_not_count(lab: Lab) -> None:
    lab.start(lab.step())
    long_ago = time.time() - 3600
    with pytest.raises(TaskDeferred):
        lab.resume(lab.step(), lab.event("error", _watched_again=long_ago, _trouble_since=long_ago))


def test_only_a_pod_that_is_not_there_is_told_to_be_gone(lab: Lab) -> None:
    pod = lab.start(lab.step())
    del lab.api.pods[pod["metadata"]["name"]]
    with pytest.raises(AirflowException, match="the pod is gone"):
        lab.resume(lab.step(), lab.event("error"))
    assert lab.ending().code == ExitCode.TRANSIENT


def test_a_step_that_cannot_be_started_for_lack_of_a_cluster_says_so(lab: Lab) -> None:
    lab.api.away()
    with pytest.raises(AirflowException, match="Kubernetes does not answer"):
        lab.step().execute(lab.context(lab.step()))
    assert lab.ending().code == ExitCode.TRANSIENT
    lab.api.back()


def _store_away(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise objects.StoreUnavailable("s3://runs: could not read. Is the store up?")

    patch.setattr("fedrisk_airflow.step_operator.read_plan", away)


def _two_pods(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    pod = lab.start(lab.step("join", "hospital-1", soft=True))
    copy = {**pod, "metadata": {**pod["metadata"], "name": "second"}}
    lab.api.pods["second"] = copy


def _out_of_time(lab: Lab, patch: pytest.MonkeyPatch) -> None:
    def late(*_: Any) -> None:
        raise AirflowTaskTimeout("3600 s")

    patch.setattr("fedrisk_airflow.kubernetes.operator.manifest_of", lambda *_, **__: late())


@pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        (_store_away, 4, "Is the store up"),
        (_two_pods, 4, "more than one pod"),
        (_out_of_time, 1, "did not end in its time"),
    ],
)  # fmt: skip
def test_whatever_ends_a_soft_steps_last_try_skips_it_and_is_told(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, trouble: Any, code: int, words: str
) -> None:
    trouble(lab, monkeypatch)
    task = lab.step("join", "hospital-1", soft=True)
    with pytest.raises(AirflowSkipException, match=words):
        task.execute(lab.context(task, number=1, tries=0))
    assert (lab.ending().code, lab.ending().hospital) == (code, "hospital-1")
    assert lab.api.pods == {}


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [("Trigger failure", 4, "trigger that watched the pod"), ("Trigger timeout", 1, "in its time")],
)
def test_a_failed_trigger_leaves_no_pod_and_skips_a_soft_step(
    lab: Lab, error: str, code: int, words: str
) -> None:
    lab.start(lab.step("join", "hospital-1", soft=True))
    task = lab.step("join", "hospital-1", soft=True)
    with pytest.raises(AirflowSkipException, match=words):
        task.resume_execution("__fail__", {"error": error}, lab.context(task, tries=0))
    assert (lab.ending().code, lab.api.pods) == (code, {})


def test_a_failed_trigger_is_tried_again_where_there_is_a_try(lab: Lab) -> None:
    lab.start(lab.step("join", "hospital-1", soft=True))
    task = lab.step("join", "hospital-1", soft=True)
    with pytest.raises(AirflowException, match="trigger") as raised:
        task.resume_execution("__fail__", {"error": "Trigger failure"}, lab.context(task))
    assert not isinstance(raised.value, AirflowSkipException)


def test_a_step_that_is_done_takes_an_earlier_trys_failure_back(lab: Lab) -> None:
    lab.api.end(lab.start(lab.step()), 4, "error: no store at all.")
    with pytest.raises(AirflowException):
        lab.resume(lab.step(), lab.event("failed"))
    assert lab.ending().code == 4
    lab.done("champion")
    lab.step().execute(lab.context(lab.step(), number=2))
    assert (lab.ending().code, lab.ending().message) == (0, "")
    assert lab.api.pods == {}


def test_a_plan_of_another_study_starts_no_pod(lab: Lab) -> None:
    task = lab.step(study="heart")
    with pytest.raises(AirflowFailException, match="is of study stroke, not of heart"):
        task.execute(lab.context(task))
    assert lab.api.pods == {}


def test_the_pod_is_told_the_operators_study(lab: Lab) -> None:
    command = lab.start(lab.step())["spec"]["containers"][0]["command"]
    assert command[-4:] == ["--study", "stroke", "--run", RUN]


def test_a_pod_on_a_lost_node_is_gone_once_its_time_is_over(lab: Lab) -> None:
    pod = lab.start(lab.step())
    lab.api.lose(pod, api_errors.LOST_AFTER + 5)
    with pytest.raises(AirflowException, match="its node was drained"):
        lab.resume(lab.step(), lab.event("error"))
    assert lab.ending().code == ExitCode.TRANSIENT
    # The next try gets a pod of its own although this one stays.
    assert lab.start(lab.step(), number=2) is not pod


def test_two_pods_on_lost_nodes_are_in_nobodys_way(lab: Lab) -> None:
    for number in (1, 2):
        lab.api.lose(lab.start(lab.step(), number=number), 3600)
    lab.start(lab.step(), number=3)
    assert len(lab.api.pods) == 3


@pytest.mark.parametrize(
    ("code", "number", "released"),
    [(1, 1, False), (1, 3, True), (4, 2, False), (4, 3, True), (2, 1, True), (3, 1, True)],
)
def test_hospitals_are_released_once_the_server_has_no_try_left(
    lab: Lab, code: int, number: int, released: bool
) -> None:
    lab.api.end(lab.start(lab.step("federated"), number=number), code, "error: why")
    with pytest.raises(AirflowException, match="why"):
        lab.resume(lab.step("federated"), lab.event("failed"), number=number)
    assert is_ended(lab.settings, RUN) is released


def test_a_server_out_of_memory_or_room_releases_the_hospitals_too(lab: Lab) -> None:
    lab.api.end(lab.start(lab.step("federated"), number=3), 137, reason="OOMKilled")
    with pytest.raises(AirflowException, match="more memory"):
        lab.resume(lab.step("federated"), lab.event("failed"), number=3)
    assert is_ended(lab.settings, RUN)


@pytest.mark.parametrize(("step", "released"), [("features", True), ("local", False)])
def test_a_hospital_without_features_leaves_the_others_without_a_server(
    lab: Lab, step: str, released: bool
) -> None:
    lab.api.end(lab.start(lab.step(step, "hospital-2")), 2, "error: why")
    with pytest.raises(AirflowFailException):
        lab.resume(lab.step(step, "hospital-2"), lab.event("failed"))
    assert is_ended(lab.settings, RUN) is released


def test_on_a_standing_federation_nobody_waits_for_a_mark(lab: Lab) -> None:
    lab.settings = lab.settings.model_copy(update={"federation": "standing"})
    lab.api.end(lab.start(lab.step("federated")), 2, "error: why")
    with pytest.raises(AirflowFailException):
        lab.resume(lab.step("federated"), lab.event("failed"))
    assert not is_ended(lab.settings, RUN)


def test_a_task_that_airflow_itself_has_failed_is_told_and_releases_the_hospitals(lab: Lab) -> None:
    task = lab.step("federated")
    (callback,) = task.on_failure_callback
    assert callback is on_failure
    callback(lab.context(task, exception="lost by its worker"))
    assert "lost by its worker" in lab.ending().message
    assert is_ended(lab.settings, RUN)


def test_what_the_step_itself_has_told_is_not_told_over(lab: Lab) -> None:
    lab.api.end(lab.start(lab.step("federated")), 2, "error: why")
    task = lab.step("federated")
    with pytest.raises(AirflowFailException):
        lab.resume(task, lab.event("failed"))
    on_failure(lab.context(task, exception="worse words"))
    assert (lab.ending().code, lab.ending().message) == (2, "why")


@pytest.mark.parametrize("step", ["federated", "join"])
def test_the_mark_of_an_earlier_end_is_taken_away_before_a_pod_is_made(lab: Lab, step: str) -> None:
    mark_ended(lab.settings, RUN)
    lab.states = {"federated": "queued"}
    lab.start(lab.step(step, "hospital-1" if step == "join" else None))
    assert not is_ended(lab.settings, RUN)


@pytest.mark.parametrize("state", ["failed", "upstream_failed", "skipped"])
def test_a_hospital_does_not_wait_for_a_server_that_has_failed(lab: Lab, state: str) -> None:
    mark_ended(lab.settings, RUN)
    lab.states = {"federated": state}
    task = lab.step("join", "hospital-1", soft=True)
    with pytest.raises(AirflowSkipException, match=f"the task federated is {state}"):
        task.execute(lab.context(task))
    assert (lab.api.pods, lab.ending().code) == ({}, ExitCode.REFUSED)
    assert is_ended(lab.settings, RUN)


def test_kubeconfig_wins_inside_a_pod_before_and_after_the_wait(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("another cluster's")
    monkeypatch.setattr("tasks.launch.pods.IN_CLUSTER", token)
    monkeypatch.setattr(
        "kubernetes.config.load_incluster_config", lambda **_: pytest.fail("the pod's own cluster")
    )
    pod = lab.start(lab.step())
    lab.api.end(pod, 2, "error: why")
    with pytest.raises(AirflowFailException, match="why"):
        lab.resume(lab.step(), lab.event("failed"))


def test_without_kubeconfig_a_pod_uses_its_own_cluster(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setattr("tasks.launch.pods.IN_CLUSTER", tmp_path)
    task = lab.step()
    task._know_pods()
    assert (task.in_cluster, task.config_file) == (True, None)
