"""What the pods of a run's hospitals and of its server know of each other through Airflow.

Where a run has a federation of its own, a hospital's pod (``join``) waits for the server's pod
(``federated``). A server that was killed, or that never started, cannot say that it will not come;
Airflow can, for it has the consortium's key.
"""

from __future__ import annotations

import time
from typing import Any

from pod_manifest import PodOf

from tasks.federation.ended import is_ended, mark_ended, unmark_ended
from tasks.settings import Settings

SETTLED = 5.0
"""Seconds after which Airflow knows of a task's end."""
GONE = frozenset({"failed", "upstream_failed", "skipped", "removed"})
"""States of the task ``federated`` in which it neither works nor has left a model."""
BEFORE_SERVER = frozenset({"collect", "validate", "features", "federated"})
"""Steps of which one that has failed for good leaves the run's hospitals without a server."""


def why_no_server(pod: PodOf, settings: Settings, run: str, ti: Any) -> str | None:
    """Before a pod is made: why the run's server will not come, if a hospital would wait for it.

    The mark that an earlier try of the server has left is taken away: it would end a hospital's
    part before it has begun.

    Args:
        pod: The pod that is to be made.
        settings: Where the store is.
        run: The run's id.
        ti: The task instance that asks Airflow.

    Raises:
        StoreUnavailable: The store does not answer.
    """
    if pod.kind == "server":
        unmark_ended(settings, run)
    if pod.kind != "hospital":
        return None
    marked = is_ended(settings, run)
    if marked:
        # Whoever has just left the mark is about to tell Airflow.
        time.sleep(SETTLED)
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=["federated"], run_ids=[ti.run_id])
    state = states.get(ti.run_id, {}).get("federated")
    if state in GONE:
        return (
            f"the run's server will not come: the task federated is {state}. Clear both tasks "
            "together to go on."
        )
    if marked:
        unmark_ended(settings, run)
    return None


def release_hospitals(step: str, settings: Settings, run: str) -> None:
    """Once a step has failed for good: let no hospital's pod wait for a server that needed it.

    Args:
        step: The step's name.
        settings: Where the store is.
        run: The run's id.

    Raises:
        StoreUnavailable: The store does not answer.
    """
    if step in BEFORE_SERVER and settings.federation == "run":
        mark_ended(settings, run)
