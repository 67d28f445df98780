"""List and delete the pods that an Airflow has started.

Labels and annotations name the Airflow that started a pod and the task that it runs, so that pods
left behind by a dead Airflow or a deleted run can be deleted. The embedded Airflow's supervisor
runs this module after everything else has ended; the DAG ``fedrisk_sweep`` uses it in a long-lived
Airflow.
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
"""Label: the Airflow that started the pod."""
DAG, RUN, TASK, INDEX = (f"fedrisk.io/{each}" for each in ("dag", "run", "task", "map-index"))
"""Annotations: the task instance that the pod runs."""
FOLDER = "fedrisk.io/folder"
"""Annotation: fedrisk's run id, which can differ from Airflow's."""
CALL_DEADLINE = 10
"""Seconds for Kubernetes to answer a call."""
POD_GRACE = 10
"""Seconds for a pod to exit by itself."""
LOST_AFTER = 60
"""Seconds after the end of its grace when a deleted pod that still exists is on a lost node."""
IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True)
class Pod:
    """A pod that runs a task.

    Attributes:
        name: Its name.
        dag: The DAG's id.
        run: The DAG run's id.
        task: The task's id.
        index: The map index; -1 for a task that is not mapped.
        age: Seconds since its creation.
        folder: fedrisk's run id.
    """

    name: str
    dag: str
    run: str
    task: str
    index: int
    age: float
    folder: str = ""


def airflow_id(secret: str) -> str:
    """A unique id of one Airflow that all of its processes can compute.

    Args:
        secret: The Fernet key, which they share.
    """
    return hashlib.sha256(b"fedrisk pods\n" + secret.encode()).hexdigest()[:12]


def kubeconfig() -> str | None:
    """The kubeconfig file; None for the pod's own cluster or the user's default file.

    ``KUBECONFIG`` is explicit, so it wins over the pod's own cluster. The provider's client prefers
    the pod's own unless it is given the file.
    """
    return os.environ.get("KUBECONFIG") or None


def in_cluster() -> bool:
    """Whether this process runs in a pod and uses its service account."""
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
            f"FEDRISK_LAUNCHER=kubernetes: no cluster is configured ({error}); set KUBECONFIG."
        ) from None
    return client.CoreV1Api()


def list_pods(namespace: str, airflow: str, *, lost: bool = False) -> list[Pod]:
    """List the pods of one Airflow that are not being deleted.

    Args:
        namespace: Their namespace.
        airflow: The id from ``airflow_id``.
        lost: List instead those whose deletion is long overdue: their node is lost, though
            Kubernetes still lists it, and no kubelet can report their end.

    Raises:
        SettingsError: There is no cluster.
    """
    selector = ",".join(f"{key}={value}" for key, value in {**POD_LABELS, AIRFLOW: airflow}.items())
    found = _client().list_namespaced_pod(
        namespace, label_selector=selector, _request_timeout=CALL_DEADLINE
    )
    now = datetime.now(UTC)
    return [_pod(each, now) for each in found.items if _matches(each, now, lost)]


def _matches(pod: Any, now: datetime, lost: bool) -> bool:
    # Kubernetes sets the time of the request plus the grace period.
    deleted = pod.metadata.deletion_timestamp
    if deleted is None:
        return not lost
    return lost and (now - deleted).total_seconds() > LOST_AFTER


def _pod(pod: Any, now: datetime) -> Pod:
    notes = pod.metadata.annotations or {}
    age = (now - pod.metadata.creation_timestamp).total_seconds()
    dag, run, task, folder = (notes.get(key, "") for key in (DAG, RUN, TASK, FOLDER))
    return Pod(pod.metadata.name, dag, run, task, int(notes.get(INDEX, -1)), age, folder)


def end_pods(namespace: str, pods: Iterable[Pod], grace: int = POD_GRACE) -> None:
    """Delete pods; one that no longer exists is ignored.

    Args:
        namespace: Their namespace.
        pods: The pods.
        grace: Seconds for each to exit by itself.

    Raises:
        SettingsError: There is no cluster.
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
    """Delete all pods of one Airflow: ``python -m tasks.launch.pods NAMESPACE AIRFLOW``."""
    namespace, airflow = sys.argv[1:]
    try:
        left = list_pods(namespace, airflow)
        end_pods(namespace, left)
    except FedriskError as error:
        print(f"error: {error}")
        sys.exit(error.exit_code)
    print(f"{len(left)} pods deleted in {namespace}: {', '.join(pod.name for pod in left)}")


if __name__ == "__main__":
    main()
