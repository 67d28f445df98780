"""How a step's pod ended, in plain words: its exit code, or why it had none.

Kubernetes reports in many places why a pod failed; a task's log should give the reason in one
sentence with what to do. Takes what Kubernetes' client returns and needs nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.errors import ExitCode
from tasks.launch.process import SIGNALLED
from tasks.run.ending import error_message

PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
OUT_OF_MEMORY = "OOMKilled"


def code_and_reason(
    pod: Any,
    *,
    container: str,
    status: str,
    limit: str = "",
    warnings: Sequence[str] = (),
    lines: Sequence[str] = (),
) -> tuple[int, str]:
    """What a pod's end means.

    Args:
        pod: The pod as it was seen last (``V1Pod``); None if it has gone.
        container: Name of the step's container.
        status: The trigger's result: ``success``, ``failed``, ``timeout`` or ``error``.
        limit: The pod's memory limit, in words.
        warnings: Messages of the pod's warning events, oldest first.
        lines: The end of the step's own output.

    Returns:
        The exit code as ``tasks.errors.ExitCode`` has it, and the reason; empty if there is none.
    """
    if pod is None:
        if status == "success":
            return ExitCode.DONE, ""
        return ExitCode.TRANSIENT, (
            "the pod is gone: it was deleted from outside, or its node was drained or lost"
        )
    state = _state(pod, container)
    ended = state.terminated if state else None
    if ended is not None and ended.exit_code == ExitCode.DONE:
        return ExitCode.DONE, ""
    whole = _of_the_pod(pod, status)
    if ended is None:
        return whole or _never_ran(pod, state, status, warnings)
    if ended.reason == OUT_OF_MEMORY:
        return ExitCode.FAILED, (
            f"the pod was ended because it used more memory than its limit of {limit}: raise it, "
            "or choose a larger compute.profile"
        )
    if whole is not None:
        return whole
    if ended.exit_code in set(ExitCode):
        return ended.exit_code, error_message(lines or (ended.message or "").splitlines())
    if ended.exit_code > SIGNALLED:
        return ExitCode.FAILED, f"the step was ended by signal {ended.exit_code - SIGNALLED}" + (
            f" ({ended.reason})" if ended.reason not in (None, "Error") else ""
        )
    return ExitCode.FAILED, (
        f"the container ended with code {ended.exit_code} ({ended.reason}): "
        + error_message((ended.message or "").splitlines() or lines)
    )


def seconds_of(pod: Any, container: str) -> float:
    """From a pod's making to its container's end, in seconds; 0 where either is not known.

    Args:
        pod: The pod as it was seen last; None if it has gone.
        container: Name of the step's container.
    """
    for each in (pod.status.container_statuses or ()) if pod is not None else ():
        if each.name == container and each.state.terminated is not None:
            ended = each.state.terminated.finished_at
            if ended is not None:
                return round((ended - pod.metadata.creation_timestamp).total_seconds(), 3)
    return 0.0


def refused(status: int, message: str) -> tuple[int, str]:
    """What it means that Kubernetes did not take a pod.

    Args:
        status: HTTP status of the answer.
        message: The answer's message.
    """
    again = status in (403, 409, 429) or status >= 500 or status == 0
    code = ExitCode.TRANSIENT if again else ExitCode.BAD_INPUT
    return code, f"Kubernetes does not take the pod ({status or 'no answer'}): {message}"


def _state(pod: Any, container: str) -> Any:
    statuses = (pod.status.container_statuses if pod.status else None) or ()
    return next((each.state for each in statuses if each.name == container), None)


def _of_the_pod(pod: Any, status: str) -> tuple[int, str] | None:
    """What ended the pod as a whole, if something did."""
    reason, words = pod.status.reason, pod.status.message or ""
    if reason == "Evicted":
        return ExitCode.TRANSIENT, f"the pod was evicted from its node: {words}"
    if reason == "DeadlineExceeded":
        return ExitCode.FAILED, (
            f"the step did not end within {pod.spec.active_deadline_seconds} s, so Kubernetes "
            "ended its pod"
        )
    for condition in pod.status.conditions or ():
        if condition.type == "DisruptionTarget" and condition.status == "True":
            words = condition.message or condition.reason
            return ExitCode.TRANSIENT, f"the cluster took the pod away: {words}"
    if pod.metadata.deletion_timestamp is not None and status != "timeout":
        return ExitCode.TRANSIENT, "the pod was deleted from outside, or its node was drained"
    return None


def _never_ran(pod: Any, state: Any, status: str, warnings: Sequence[str]) -> tuple[int, str]:
    """Why a pod's container has not ended, or not even begun."""
    if state is not None and state.running is not None:
        if status == "timeout":
            return ExitCode.FAILED, "the step did not end in its time (the task's timeout)"
        return ExitCode.TRANSIENT, "the pod could not be watched to its end"
    waiting = state.waiting if state is not None else None
    if waiting is not None and waiting.reason in PULL:
        image = pod.spec.containers[0].image
        return ExitCode.FAILED, (
            f"the image {image} cannot be pulled ({waiting.reason}): {waiting.message or ''}"
        )
    if waiting is not None and waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
        return ExitCode.FAILED, (
            f"the container cannot start ({waiting.reason}): {waiting.message or ''}"
        )
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return ExitCode.FAILED, f"no node has room for the pod: {condition.message}"
    last = f": {warnings[-1]}" if warnings else ""
    return ExitCode.FAILED, f"the pod did not start in time{last}"
