"""The DAG ``fedrisk_sweep``: deletes pods whose run or task has ended.

Airflow deletes a task's pod whenever it can. It cannot where a run was deleted while a task was
deferred, where a task was marked while no triggerer ran, for a pod without a node, whose own
deadline starts with the node, and for a pod on a lost node. The sweep also releases hospitals'
pods whose server will not come.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from tasks.settings import Settings

SETTINGS = Settings.from_environment()
YOUNG = 60.0
"""Age in seconds below which a pod is left alone: Airflow may not know its task's state yet."""
ALIVE = ["queued", "running"]
"""States of a run whose tasks may have pods."""
ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


def orphaned_pods(pods: Iterable[Any], ti: Any) -> dict[Any, str]:
    """Which pods are of no use, and why.

    Args:
        pods: This Airflow's pods (``tasks.launch.pods.Pod``).
        ti: The task instance that asks Airflow.
    """
    found = {}
    for pod in pods:
        if pod.age < YOUNG:
            continue
        if not ti.get_dr_count(dag_id=pod.dag, run_ids=[pod.run], states=ALIVE):
            found[pod] = "its run has ended or is gone"
            continue
        index = pod.index if pod.index >= 0 else None
        states = ti.get_task_states(
            dag_id=pod.dag, task_ids=[pod.task], run_ids=[pod.run], map_index=index
        )
        state = next(iter(states.get(pod.run, {}).values()), "removed")
        if state in ENDED:
            found[pod] = f"its task is {state}"
    return found


def runs_without_server(pods: Iterable[Any], ti: Any) -> list[str]:
    """Runs whose hospitals wait for a server that will not come: a marked task writes no ending.

    Args:
        pods: This Airflow's pods (``tasks.launch.pods.Pod``).
        ti: The task instance that asks Airflow.

    Returns:
        The ids of fedrisk's runs.
    """
    waiting = {(pod.dag, pod.run): pod.folder for pod in pods if pod.task == "join"}
    found = []
    for (its, run), folder in waiting.items():
        states = ti.get_task_states(dag_id=its, task_ids=["federated"], run_ids=[run])
        if folder and states.get(run, {}).get("federated") in ENDED:
            found.append(folder)
    return found


def sweep_pods(settings: Settings, ti: Any) -> int:
    """Delete orphaned pods, and release hospitals whose server will not come.

    Args:
        settings: Where the pods and the store are.
        ti: The task instance that asks Airflow.

    Returns:
        How many pods were ended.
    """
    from fedrisk_airflow.step_outcome import this_airflow
    from tasks.federation.server_status import mark_ended
    from tasks.launch.pods import end_pods, pods_of

    space, airflow = settings.namespace, this_airflow()
    pods = pods_of(space, airflow)
    found = orphaned_pods(pods, ti)
    for pod, why in found.items():
        print(f"{pod.name} of {pod.dag}, run {pod.run}, task {pod.task}: {why}")
    end_pods(space, found)
    for run in runs_without_server([pod for pod in pods if pod not in found], ti):
        print(f"run {run}: its server will not come; its hospitals are released")
        mark_ended(settings, run)
    lost = pods_of(space, airflow, lost=True)
    for pod in lost:
        print(f"{pod.name} of {pod.dag}, run {pod.run}, task {pod.task}: its node is lost")
    # Kubernetes forgets them only with a grace of 0.
    end_pods(space, lost, grace=0)
    print(f"{len(found) + len(lost)} pods ended")
    return len(found) + len(lost)


if SETTINGS.launcher == "kubernetes":

    @dag(
        "fedrisk_sweep",
        dag_display_name="Sweep: orphaned pods",
        description="Ends pods whose run or task has ended or is gone",
        schedule="*/5 * * * *",
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        dagrun_timeout=timedelta(minutes=4),
        tags=["fedrisk", "maintenance"],
        default_args={"owner": "fedrisk"},
    )
    def fedrisk_sweep() -> None:
        """Look after this Airflow's pods."""

        @task(execution_timeout=timedelta(minutes=3), retries=0)
        def sweep(ti: Any = None) -> int:
            """Delete orphaned pods and log the reason of each."""
            return sweep_pods(SETTINGS, ti)

        sweep()

    fedrisk_sweep()
