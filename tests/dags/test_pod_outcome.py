"""What a pod's end means, from what Kubernetes says of it."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client as k8s

from fedrisk_airflow.kubernetes.pod_outcome import code_and_reason, refused
from tasks.errors import ExitCode


def pod(
    *,
    ended: tuple[int, str] | None = None,
    waiting: tuple[str, str] | None = None,
    running: bool = False,
    deleted: bool = False,
    conditions: tuple[tuple[str, str, str], ...] = (),
    **status: Any,
) -> Any:
    state = k8s.V1ContainerState(
        terminated=ended and k8s.V1ContainerStateTerminated(exit_code=ended[0], reason=ended[1]),
        waiting=waiting and k8s.V1ContainerStateWaiting(reason=waiting[0], message=waiting[1]),
        running=k8s.V1ContainerStateRunning() if running else None,
    )
    container = k8s.V1ContainerStatus(
        name="step", state=state, image="i", image_id="i", ready=False, restart_count=0
    )
    return k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(deletion_timestamp="now" if deleted else None),
        spec=k8s.V1PodSpec(
            containers=[k8s.V1Container(name="step", image="fedrisk-spark:1")],
            active_deadline_seconds=900,
        ),
        status=k8s.V1PodStatus(
            container_statuses=[container] if ended or waiting or running else None,
            conditions=[
                k8s.V1PodCondition(type=kind, status=value, message=words)
                for kind, value, words in conditions
            ],
            **status,
        ),
    )


TIMEOUT, FAILED = "timeout", "failed"


@pytest.mark.parametrize(
    ("seen", "status", "code", "words"),
    [
        (pod(ended=(0, "Completed")), "success", 0, ""),
        (pod(ended=(2, "Error")), FAILED, 2, "no column bmi"),
        (pod(ended=(3, "Error")), FAILED, 3, "no column bmi"),
        (pod(ended=(4, "Error")), FAILED, 4, "no column bmi"),
        (pod(ended=(137, "OOMKilled")), FAILED, 1, "limit of 1Gi"),
        (pod(ended=(1, "OOMKilled")), FAILED, 1, "limit of 1Gi"),
        (pod(ended=(139, "Error")), FAILED, 1, "signal 11"),
        (pod(ended=(127, "StartError")), FAILED, 1, "code 127 (StartError)"),
        (pod(ended=(143, "Error"), deleted=True), FAILED, 4, "deleted from outside"),
        (pod(ended=(137, "Error"), reason="Evicted", message="low on disk"), FAILED, 4, "low on"),
        (pod(ended=(137, "Error"), reason="DeadlineExceeded"), FAILED, 1, "within 900 s"),
        (pod(reason="Evicted", message="low on disk"), FAILED, 4, "evicted"),
        (
            pod(ended=(143, "Error"), conditions=(("DisruptionTarget", "True", "preempted"),)),
            FAILED, 4, "preempted",
        ),
        (pod(waiting=("ErrImagePull", "no such host")), "error", 1, "fedrisk-spark:1 cannot be"),
        (
            pod(waiting=("CreateContainerConfigError", 'secret "fedrisk-pool" not found')),
            TIMEOUT, 1, 'secret "fedrisk-pool" not found',
        ),
        (pod(conditions=(("PodScheduled", "False", "0/1 nodes"),)), TIMEOUT, 1, "no node has room"),
        (pod(waiting=("ContainerCreating", "")), TIMEOUT, 1, "secret not mounted"),
        (pod(running=True), TIMEOUT, 1, "did not end in its time"),
        (None, "success", 0, ""),
        (None, "error", 4, "the pod is gone"),
    ],
)  # fmt: skip
def test_every_end_has_a_code_and_a_reason(seen: Any, status: str, code: int, words: str) -> None:
    found, why = code_and_reason(
        seen, container="step", status=status, limit="1Gi",
        warnings=["first", "secret not mounted"],
        lines=["begins", "error: hospital-1: no column bmi", "Correct the study."],
    )  # fmt: skip
    assert found == code
    assert words in why
    assert bool(why) == bool(code)


def test_without_a_log_the_termination_message_says_why() -> None:
    seen = pod(ended=(2, "Error"))
    seen.status.container_statuses[0].state.terminated.message = "x\nerror: no such study"
    assert code_and_reason(seen, container="step", status=FAILED) == (2, "no such study")


@pytest.mark.parametrize(
    ("status", "code"),
    [(422, ExitCode.BAD_INPUT), (404, ExitCode.BAD_INPUT), (403, ExitCode.TRANSIENT), (503, 4)],
)
def test_a_pod_that_is_not_taken_is_tried_again_where_that_may_help(status: int, code: int) -> None:
    found, why = refused(status, "exceeded quota")
    assert found == code
    assert "exceeded quota" in why
