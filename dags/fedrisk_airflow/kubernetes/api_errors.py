"""Errors around a step's pod rather than in it: of the cluster, the store or Airflow itself.

``pod_outcome.py`` classifies the end of a pod; this module classifies exceptions, so that every
failure has an exit code and a reason.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import KubernetesApiException
from airflow.providers.cncf.kubernetes.operators.pod import FoundMoreThanOnePodFailure
from airflow.providers.cncf.kubernetes.utils.pod_manager import detect_pod_terminate_early_issues
from airflow.sdk.exceptions import AirflowTaskTimeout, TaskDeferralError, TaskDeferralTimeout
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from tasks.errors import ExitCode, FedriskError
from tasks.launch.pods import LOST_AFTER

UNREACHABLE = (ApiException, HTTPError, KubernetesApiException)
"""What Kubernetes' client and the provider raise for no answer, or for a refusal."""
PASSING = frozenset({0, 401, 408, 409, 429, 500, 502, 503, 504})
"""Statuses of answers that may be another a moment later (a token expires, a server restarts)."""
PAUSE = 3.0
"""Seconds between two tries of one call."""

T = TypeVar("T")


def retry(call: Callable[[], T], patience: float) -> T:
    """Call Kubernetes until it answers.

    Args:
        call: What to call.
        patience: Seconds after which its last refusal is raised.

    Returns:
        The call's answer.
    """
    end = time.monotonic() + patience
    while True:
        try:
            return call()
        except UNREACHABLE as error:
            if not passing(error) or time.monotonic() + PAUSE > end:
                raise
        time.sleep(PAUSE)


def passing(error: BaseException) -> bool:
    """Whether the same call may be answered a moment later."""
    return not isinstance(error, ApiException) or (error.status or 0) in PASSING


def error_text(error: BaseException) -> str:
    """The message of Kubernetes' answer, without headers; else the reason why there is none."""
    if not isinstance(error, ApiException):
        return str(error)
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)


def classify_error(error: BaseException) -> tuple[int, str]:
    """The exit code of a step that an exception has ended, and the reason.

    Args:
        error: What was raised around the step's pod.
    """
    if isinstance(error, FedriskError):
        return error.exit_code, str(error)
    if isinstance(error, UNREACHABLE):
        return ExitCode.TRANSIENT, f"Kubernetes does not answer as it should: {error_text(error)}"
    if isinstance(error, FoundMoreThanOnePodFailure):
        return ExitCode.TRANSIENT, "the step had more than one pod; all of them were ended"
    if isinstance(error, AirflowTaskTimeout | TaskDeferralTimeout):
        return ExitCode.FAILED, "the step did not end in its time (the task's timeout)"
    if isinstance(error, TaskDeferralError):
        return ExitCode.TRANSIENT, (
            f"Airflow's trigger that watched the pod has failed ({error}), so the pod was ended"
        )
    return ExitCode.FAILED, f"{type(error).__name__}: {error}"


def is_lost(pod: Any) -> bool:
    """Whether a pod should have gone long ago: its node does not answer any more."""
    gone = pod.metadata.deletion_timestamp
    return gone is not None and (datetime.now(UTC) - gone).total_seconds() > LOST_AFTER


def never_starts(pod: Any) -> bool:
    """Whether a pod's container cannot start, by the provider's own judgement: no image."""
    return bool(detect_pod_terminate_early_issues(pod))


def is_over(pod: Any, container: str) -> bool:
    """Whether a pod's work has ended.

    Args:
        pod: The pod.
        container: Name of the step's container.
    """
    if pod.status.phase in ("Succeeded", "Failed"):
        return True
    statuses = pod.status.container_statuses or ()
    return any(each.name == container and each.state.terminated for each in statuses)
