"""Whether a hospital's pod may wait for the run's server, as Airflow knows its state.

Where a run has a federation of its own, a hospital's pod (``join``) waits for the server's pod
(``federated``). A server that was killed, or never started, cannot report that it will not come;
Airflow can, with the consortium's key.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fedrisk_airflow.kubernetes.pod_spec import PodOf
from tasks.federation.server_status import is_ended, mark_ended, unmark_ended
from tasks.settings import Settings

SETTLED = 5.0
"""Seconds after which Airflow knows of a task's end."""
SERVER = "federated"
GONE = frozenset({"failed", "upstream_failed", "skipped", "removed"})
"""States of the task ``federated`` in which it neither works nor has left a model."""
WAITS = frozenset({None, "up_for_retry"})
"""States of ``federated`` in which Airflow has yet to look at what comes before it."""
BEFORE_SERVER = frozenset({"collect", "validate", "features", SERVER})
"""Steps of which one that has failed for good leaves the run's hospitals without a server."""
LOST = ("failed", "upstream_failed", "skipped")
"""States of a step before ``federated`` with which that never starts, a cause before its effects.

None of these steps is soft, and ``federated`` wants all of them done (``dags/retrain.py``).
"""


def no_server_reason(pod: PodOf, settings: Settings, run: str, ti: Any) -> str | None:
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
        # The process that has just written the mark is about to end its task.
        time.sleep(SETTLED)
    # A mapped task stands there once a hospital, as ``collect_0``.
    names = sorted(BEFORE_SERVER)
    found = ti.get_task_states(dag_id=ti.dag_id, task_ids=names, run_ids=[ti.run_id])
    if why := _server_gone(found.get(ti.run_id, {})):
        return f"the run's server will not come: {why}"
    if marked:
        unmark_ended(settings, run)
    return None


def _server_gone(states: Mapping[str, str | None]) -> str:
    """Why no server will come and what to do, from the states of the tasks; empty if one may.

    Airflow fails ``federated`` only some passes of its scheduler after a step before it, and a
    hospital's pod created meanwhile would wait in vain.
    """
    state = states.get(SERVER)
    if state in GONE:
        return f"the task {SERVER} is {state}. Clear both tasks together to go on."
    if state not in WAITS:
        return ""
    for lost in LOST:
        for name in sorted(states):
            if name != SERVER and states[name] == lost:
                return (
                    f"the task {name}, without which {SERVER} does not start, is {lost}. Clear it, "
                    "what comes after it and all of join together to go on."
                )
    return ""


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
