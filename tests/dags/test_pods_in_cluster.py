"""The pods of steps on a real cluster: how they end, what is told, and that nothing stays."""

from __future__ import annotations

import contextlib
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from kubernetes_cluster import cluster, kubectl  # noqa: F401
from kubernetes_cluster import namespace as own_namespace
from lake.s3_server import s3_server
from standin import load_standin

from smoke.waits import until
from tasks.local_airflow.api_client import NotFound
from tasks.local_airflow.home import AirflowHome
from tasks.local_airflow.server import Running, airflow_running
from tasks.run.ending import Ending, read_endings
from tasks.run.folder import RunFolder
from tasks.run.manifest import Manifest
from tasks.run.plan import Request, make_plan
from tasks.run.stored_run import open_run
from tasks.settings import Settings

pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.shared, pytest.mark.timeout(3600)]

SMALL = [
    "compute.registry.requests.cpu=10m", "compute.registry.requests.memory=32Mi",
    "compute.registry.limits.memory=100Mi", "compute.place_within=60", "compute.start_within=300",
    "compute.hospital.node_selector={workload: null}",
    # The one node may be marked for training by whoever else tries something on it.
    "compute.registry.tolerations=[{key: fl-training, operator: Exists}]",
]  # fmt: skip
CASES = {
    "done": "case",
    "no-manifest": "case",
    "refused": "case_again",
    "away": "case_again",
    "slow-late": "case_late",
    "slow-marked": "case",
    "slow-gone": "case",
    "slow-cleared": "case",
    "slow-at-work": "case",
    "soft-away": "case_soft",
    "slow-at-end": "case",
}


@dataclass
class Lab:
    """A cluster's namespace and the Airflow that starts pods in it."""

    running: Running
    settings: Settings
    client: Any

    def pods(self, run: str = "") -> list[Any]:
        found = self.client.list_namespaced_pod(self.settings.namespace).items
        of = [(p, (p.metadata.annotations or {}).get("fedrisk.io/run")) for p in found]
        return [p for p, name in of if run in ("", name)]

    def start(self, run: str) -> None:
        make_plan(Request(study="stroke", overrides=SMALL), run, self.settings)
        self.running.airflow.trigger(CASES[run], run, {})

    def clear(self, run: str) -> None:
        body = {
            "dry_run": False, "dag_run_id": run, "only_failed": False, "reset_dag_runs": True,
            "task_ids": [self.task(run)["task_id"]],
        }  # fmt: skip
        path = f"/api/v2/dags/{CASES[run]}/clearTaskInstances"
        self.running.airflow._retry("POST", path, body)

    def lost(self, run: str) -> int:
        """How often the scheduler took the run's task for lost."""
        asked = urllib.parse.urlencode({"run_id": run, "event": "state mismatch"})
        return int(self.running.airflow._get(f"/api/v2/eventLogs?{asked}")["total_entries"])

    def task(self, run: str) -> dict[str, Any]:
        return self.running.airflow.tasks(CASES[run], run)[0]

    def ending(self, run: str) -> Ending:
        return read_endings(RunFolder(self.settings.runs, run))[0]

    def log(self, run: str) -> str:
        folder = self.running.home.logs / "tasks" / f"dag_id={CASES[run]}" / f"run_id={run}"
        return "".join(p.read_text() for p in sorted(folder.rglob("*.log*")) if p.is_file())


def wait_for(look: Callable[[], Any]) -> Any:
    """Wait for something to be true and return it."""
    return until("the pods are as the test expects", look, 600)


OBJECTS = """
{apiVersion: v1, kind: ServiceAccount, metadata: {name: fedrisk-consortium}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: fedrisk-pool}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: fedrisk-hospital-hospital-1}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: fedrisk-settings}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: fedrisk-ca}, data: {ca.crt: none}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: fedrisk-hospital-hospital-1}}
---
{apiVersion: v1, kind: Secret, metadata: {name: fedrisk-hospital-hospital-1},
 stringData: {node.key: none}}
"""
"""What the chart would have put there, as far as these pods need it."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, checkout: Path, cluster: Path) -> Iterator[Lab]:  # noqa: F811
    scratch = tmp_path_factory.mktemp("lab")
    load_standin(scratch, *(f"kubebox.local/standin-{image}:1" for image in ("mlflow", "hospital")))
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("KUBECONFIG", str(cluster))
        from kubernetes import client, config

        config.load_kube_config(str(cluster))
        name = stack.enter_context(own_namespace(f"fedrisk-launcher-{os.getpid()}"))
        kubectl("apply", "-f", "-", namespace=name, text=OBJECTS)
        store = stack.enter_context(s3_server(scratch / "s3", ["hospital-1"]))
        for key, value in store.environment("consortium").items():
            patch.setenv(key, value)
        cases = checkout / "tests" / "dags" / "cases"
        patch.setattr(AirflowHome, "dags", property(lambda _: cases))
        # Airflow has the folder of its DAG files on the path, and the operators are not in this.
        patch.setenv("PYTHONPATH", str(checkout / "dags"))
        settings = Settings(
            home=scratch / "home",
            studies=checkout / "dags" / "studies",
            launcher="kubernetes",
            store="s3://fedrisk-runs",
            namespace=name,
            images="kubebox.local/standin-{image}:1",
            compute="small",
        )
        with airflow_running(settings, "run", print) as running:
            found = Lab(running, settings, client.CoreV1Api())
            for dag in sorted(set(CASES.values())):
                running.wait_for_dag(dag)
                running.airflow.set_paused(dag, False)
            yield found
            found.start("slow-at-end")
            wait_for(lambda: running_pod(found, "slow-at-end"))
        # Ended with Airflow, which was not told of the run's end.
        wait_for(lambda: not found.pods())


def running_pod(lab: Lab, run: str) -> Any:
    return next((p for p in lab.pods(run) if p.status.phase == "Running"), None)


@contextlib.contextmanager
def frozen_triggerer() -> Iterator[None]:
    """Let the triggerer see nothing for a moment, as one that is busy or on its way up."""
    found = []
    for each in psutil.Process().children(recursive=True):
        # Others end meanwhile, and have no command line then.
        with contextlib.suppress(psutil.Error):
            if "triggerer" in " ".join(each.cmdline()):
                found.append(each)
    assert found, "no triggerer"
    group = {each for p in found for each in (p, *p.children(recursive=True))}
    for each in group:
        each.suspend()
    try:
        yield
    finally:
        for each in group:
            each.resume()


@pytest.fixture(scope="module")
def ended(lab: Lab) -> Lab:
    """All cases, side by side, to their end."""
    # The last is looked for at once: its pod works for seconds.
    for run in sorted(CASES, key=lambda name: name == "done"):
        if run != "slow-at-end":
            lab.start(run)
    wait_for(lambda: lab.pods("done"))
    manifest = Manifest(step="champion", study="stroke", run="done")
    open_run(lab.settings, "done").write(manifest)
    return lab


def wait(lab: Lab, run: str) -> dict[str, Any]:
    """The task of a run once it has ended.

    On an overloaded machine Airflow's scheduler may hear of a task's going to wait only after its
    pod has ended, and then takes it for lost without the operator's having its say. A real run
    tries again; so does this.
    """

    def end() -> Any:
        task = lab.task(run)
        return task if task["state"] in ("success", "failed", "skipped") else None

    found: dict[str, Any] = wait_for(end)
    for lost in range(1, 6):
        if lab.lost(run) < lost:
            return found
        lab.clear(run)
        found = wait_for(end)
    return found


@pytest.mark.parametrize(
    ("run", "state", "tries", "code", "words"),
    [
        ("done", "success", 1, 0, ""),
        ("no-manifest", "failed", 1, 1, "manifest is not in s3://fedrisk-runs"),
        ("refused", "failed", 1, 3, "gate auroc: 0.5, wanted 0.7."),
        ("away", "failed", 2, 4, "no store at all."),
        ("slow-late", "failed", 1, 1, "did not end in its time"),
        ("soft-away", "skipped", 1, 4, "no store at all."),
    ],
)  # fmt: skip
def test_a_pods_end_becomes_the_tasks_with_its_reason(
    ended: Lab, run: str, state: str, tries: int, code: int, words: str
) -> None:
    task = wait(ended, run)
    assert task["state"] == state, ended.log(run)[-3000:]
    if not ended.lost(run):
        assert task["try_number"] == tries
    ending = ended.ending(run)
    assert ending.code == code
    assert words in ending.message
    assert words in ended.log(run)
    # Kubernetes takes a moment to forget a pod that was deleted.
    wait_for(lambda: not ended.pods(run))


def test_a_steps_output_is_in_the_tasks_log_and_in_the_runs(ended: Lab) -> None:
    wait(ended, "done")
    assert "step champion of done begins" in ended.log("done")
    kept = Path(ended.ending("done").log).read_text()
    assert kept == "step champion of done begins\nstep champion ends\n"


def test_a_task_marked_as_failed_while_it_waits_takes_its_pod_with_it(ended: Lab) -> None:
    # Before the triggerer watches the pod, only the sweep would find it.
    wait_for(lambda: "step champion of slow-marked begins" in ended.log("slow-marked"))
    assert running_pod(ended, "slow-marked")
    path = "/api/v2/dags/case/dagRuns/slow-marked/taskInstances/champion"
    ended.running.airflow._retry("PATCH", path, {"new_state": "failed"})
    wait_for(lambda: not ended.pods("slow-marked"))


def test_a_cleared_task_starts_with_a_pod_of_its_own(ended: Lab) -> None:
    first = wait_for(lambda: running_pod(ended, "slow-cleared"))
    wait_for(lambda: ended.task("slow-cleared")["state"] == "deferred")
    ended.clear("slow-cleared")
    second = wait_for(
        lambda: next(
            (p for p in ended.pods("slow-cleared") if p.metadata.uid != first.metadata.uid), None
        )
    )
    wait_for(lambda: [p.metadata.uid for p in ended.pods("slow-cleared")] == [second.metadata.uid])


def test_the_sweep_ends_the_pod_of_a_run_that_was_deleted_and_no_other(ended: Lab) -> None:
    """Airflow deletes a run that is marked, and with it all that the triggerer could ask for."""
    airflow = ended.running.airflow
    wait_for(lambda: running_pod(ended, "slow-gone"))
    wait_for(lambda: ended.task("slow-gone")["state"] == "deferred")
    # Otherwise the triggerer may have seen the mark before the run is gone.
    with frozen_triggerer():
        airflow.fail("case", "slow-gone")
        with contextlib.suppress(NotFound):
            airflow._retry("DELETE", "/api/v2/dags/case/dagRuns/slow-gone")
    with pytest.raises(NotFound):
        airflow.state("case", "slow-gone")
    other = wait_for(lambda: running_pod(ended, "slow-at-work"))
    (left,) = ended.pods("slow-gone")
    # The sweep leaves young pods alone; meanwhile the triggerer has had its time.
    made = max(p.metadata.creation_timestamp.timestamp() for p in (left, other))
    time.sleep(max(10.0, made + 62 - time.time()))
    assert running_pod(ended, "slow-gone"), "somebody else has ended it: the sweep is not tried"
    airflow.set_paused("fedrisk_sweep", False)
    airflow.trigger("fedrisk_sweep", "sweep-1", {})
    wait_for(lambda: airflow.state("fedrisk_sweep", "sweep-1") == "success")
    wait_for(lambda: not ended.pods("slow-gone"))
    assert running_pod(ended, "slow-at-work")
