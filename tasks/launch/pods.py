"""The pods that an Airflow has started: which are there, and their end.

Each is marked with the Airflow that started it and with the task that it works for, so that what a
dead Airflow or a deleted run has left behind is found and ended. The embedded Airflow's keeper
runs this module when everything else has ended; the DAG ``fedrisk_sweep`` uses it for an Airflow
that stays.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.errors import FedriskError, SettingsError

POD_LABELS = {"app.kubernetes.io/name": "fedrisk", "app.kubernetes.io/managed-by": "airflow"}
"""Labels of every pod of a step."""
AIRFLOW = "fedrisk.io/airflow"
"""Label: which Airflow has started it."""
DAG, RUN, TASK, INDEX = (f"fedrisk.io/{each}" for each in ("dag", "run", "task", "map-index"))
"""Annotations: the task instance that it works for."""
FOLDER = "fedrisk.io/folder"
"""Annotation: the id of fedrisk's run, which is not always Airflow's."""
CALL_DEADLINE = 10
"""Seconds that Kubernetes gets to answer a call."""
POD_GRACE = 10
"""Seconds that a pod gets to end by itself."""
LOST_AFTER = 60
"""Seconds beyond its grace after which a pod that is still there is on a lost node."""
IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True)
class Pod:
    """A pod that works for a task.

    Attributes:
        name: Its name.
        dag: The DAG's id.
        run: The id of the DAG's run.
        task: The task's id.
        index: The map index; -1 for a task that is not mapped.
        age: Seconds since it was made.
        folder: The id of fedrisk's run.
    """

    name: str
    dag: str
    run: str
    task: str
    index: int
    age: float
    folder: str = ""


def airflow_id(secret: str) -> str:
    """A name for one Airflow that all of its processes know and no other has.

    Args:
        secret: What they share: the key that Airflow encrypts with.
    """
    return hashlib.sha256(b"fedrisk pods\n" + secret.encode()).hexdigest()[:12]


def kubeconfig() -> str | None:
    """The file that names the cluster; None for a pod's own cluster, or for the user's file.

    ``KUBECONFIG`` names a cluster on purpose, so it wins over the pod's own. The provider's client
    has it the other way round unless it is told.
    """
    return os.environ.get("KUBECONFIG") or None


def in_cluster() -> bool:
    """Whether this process is itself in a pod and shall use its service account."""
    return kubeconfig() is None and IN_CLUSTER.exists()


def _client() -> Any:
    try:
        from kubernetes import client, config  # type: ignore[import-untyped]
    except ImportError:
        raise SettingsError(
            "FEDRISK_LAUNCHER=kubernetes needs fedrisk with its extra kubernetes."
        ) from None
    try:
        if in_cluster():
            config.load_incluster_config()
        else:
            config.load_kube_config(config_file=kubeconfig())
    except config.ConfigException as error:
        raise SettingsError(
            f"FEDRISK_LAUNCHER=kubernetes: there is no cluster to use ({error}); set KUBECONFIG."
        ) from None
    return client.CoreV1Api()


def list_pods(namespace: str, airflow: str, *, lost: bool = False) -> list[Pod]:
    """The pods of one Airflow that nobody has asked to end yet.

    Args:
        namespace: Where to look.
        airflow: What ``airflow_id`` gave.
        lost: Look instead for those that should have gone long ago: their node is lost, though
            Kubernetes still has it in its list, and nobody is there to say that they have ended.

    Raises:
        SettingsError: There is no cluster to ask.
    """
    selector = ",".join(f"{key}={value}" for key, value in {**POD_LABELS, AIRFLOW: airflow}.items())
    found = _client().list_namespaced_pod(
        namespace, label_selector=selector, _request_timeout=CALL_DEADLINE
    )
    now = datetime.now(UTC)
    return [_pod(each, now) for each in found.items if _is(each, now, lost)]


def _is(pod: Any, now: datetime, lost: bool) -> bool:
    # A deleted pod's time is that of the wish and its grace together.
    gone = pod.metadata.deletion_timestamp
    if gone is None:
        return not lost
    return lost and (now - gone).total_seconds() > LOST_AFTER


def _pod(pod: Any, now: datetime) -> Pod:
    notes = pod.metadata.annotations or {}
    age = (now - pod.metadata.creation_timestamp).total_seconds()
    dag, run, task, folder = (notes.get(key, "") for key in (DAG, RUN, TASK, FOLDER))
    return Pod(pod.metadata.name, dag, run, task, int(notes.get(INDEX, -1)), age, folder)


def end_pods(namespace: str, pods: Iterable[Pod], grace: int = POD_GRACE) -> None:
    """End pods; one that has gone meanwhile is none to worry about.

    Args:
        namespace: Where they are.
        pods: Which.
        grace: Seconds that each gets to end by itself.

    Raises:
        SettingsError: There is no cluster to ask.
    """
    from kubernetes.client.exceptions import ApiException  # type: ignore[import-untyped]

    client = _client()
    for pod in pods:
        try:
            client.delete_namespaced_pod(
                pod.name, namespace, grace_period_seconds=grace, _request_timeout=CALL_DEADLINE
            )
        except ApiException as error:
            if error.status != 404:
                raise


def main() -> None:
    """End all pods of one Airflow: ``python -m tasks.launch.pods NAMESPACE AIRFLOW``."""
    namespace, airflow = sys.argv[1:]
    try:
        left = list_pods(namespace, airflow)
        end_pods(namespace, left)
    except FedriskError as error:
        print(f"error: {error}")
        sys.exit(error.exit_code)
    print(f"{len(left)} pods ended in {namespace}: {', '.join(pod.name for pod in left)}")


if __name__ == "__main__":
    main()
