"""The operator of the launcher ``kubernetes``: one step of a run as one pod.

A thin ``KubernetesPodOperator`` with the house's defaults. It hands the pod's description over,
waits without a worker's slot, and turns the pod's end into what the launcher ``process`` leaves as
well: the step's log, how it ended (``ends/<step>.json``) and an exception that says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, timedelta
from functools import cached_property
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk.exceptions import AirflowException, AirflowSkipException, TaskDeferralError
from kubernetes.client.exceptions import ApiException
from pod_ending import code_and_reason, refused
from pod_manifest import CONTAINER, PodOf, limits_of, manifest_of
from step_task import fedrisk_run, raise_for, tell_assets, this_airflow

from tasks.embedded.pods import AIRFLOW, DAG, GRACE, INDEX, RUN, TASK, in_cluster
from tasks.errors import ExitCode, FedriskError
from tasks.launch import Ending
from tasks.manifest import RunFolder, write_atomically
from tasks.plan import read_plan
from tasks.settings import Settings
from tasks.store import PRIVATE_STEPS, open_run

HOUSE: dict[str, Any] = {
    # A waiting task takes no worker's slot, and a killed scheduler leaves the pod at work.
    "deferrable": True,
    # Deferred tasks lose what the sidecar would hand over; the step's manifest is the result.
    "do_xcom_push": False,
    "on_finish_action": "delete_pod",
    "on_kill_action": "delete_pod",
    "termination_message_policy": "FallbackToLogsOnError",
    "termination_grace_period": GRACE,
    "log_events_on_failure": True,
    # The whole of a pod's description hides the one line that says what happened.
    "log_pod_spec_on_failure": False,
    "base_container_name": CONTAINER,
    "startup_check_interval_seconds": 2,
    "poll_interval": 2,
    # The step's lines reach the task's log while it works, so nobody waits for the pod's log to
    # end, which a pod that hangs never lets it.
    "logging_interval": 10,
    # In a cluster its service account, elsewhere KUBECONFIG; no connection has to be made.
    "kubernetes_conn_id": None,
}
"""What every pod's operator has in common."""
LOG_LINES = 20_000
"""The end of a step's output that is kept."""


class PodStep(KubernetesPodOperator):
    """Run one step as a pod.

    Args:
        step: A key of ``tasks.step.STEPS``.
        study: The study's name.
        hospital: The hospital, for a step that runs once a hospital.
        skip_if: Says, from the frozen study, why the step does not apply; None if it does.
        soft: Whether the run can do without this step: its last failure is a skipped task.
        work_within: Seconds that the step itself gets once its pod runs.
        kwargs: What the operator takes.
    """

    template_fields = ("hospital",)
    ui_color = "#e8f1f8"

    def __init__(
        self,
        *,
        step: str,
        study: str,
        hospital: str | None = None,
        skip_if: Callable[[Any], str | None] | None = None,
        soft: bool = False,
        work_within: float = 3600,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**HOUSE, **kwargs})
        self.step = step
        self.study = study
        self.hospital = hospital
        self.skip_if = skip_if
        self.soft = soft
        self.work_within = work_within
        self.seen: Any = None
        self.warnings: list[str] = []
        self.lines: list[str] = []

    @cached_property
    def settings(self) -> Settings:
        """Those of the process that runs the task."""
        return Settings.from_environment()

    @property
    def which(self) -> PodOf:
        """The pod that the step needs."""
        return PodOf(self.step, self.hospital, self.settings.federation == "standing")

    def execute(self, context: Any) -> None:
        """Start the pod and wait for it in the triggerer."""
        folder = self._folder(context)
        plan = read_plan(folder)
        if self.skip_if is not None and (reason := self.skip_if(plan.study)):
            raise AirflowSkipException(reason)
        self._know_pods()
        try:
            self._end_former(context)
        except ApiException as error:
            self._end(context, *refused(error.status or 0, _words(error)))
        if folder.find(self.step, self.hospital) is not None:
            self.log.info("step %s is done already; its manifest is kept", self.step)
            tell_assets(self, folder, context)
            return
        compute, pod = plan.study.compute, self.which
        self.namespace, self.name = self.settings.namespace, pod.name
        self.pod_template_dict = manifest_of(pod, plan, self.settings, annotations_of(context))
        self.schedule_timeout_seconds = int(compute.place_within)
        self.startup_timeout_seconds = int(compute.start_within)
        # The last bound, kept by the cluster alone: for a pod that everybody has forgotten.
        self.active_deadline_seconds = int(compute.start_within + self.work_within)
        try:
            super().execute(context)
        except ApiException as error:
            self._end(context, *refused(error.status or 0, _words(error)))

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> None:
        """Go on once the pod has ended, or was given up.

        Raises:
            AirflowFailException: The step ended with an exit code after which no retry helps.
            AirflowException: It ended otherwise, and is tried again.
            AirflowSkipException: The run can do without it.
        """
        try:
            super().trigger_reentry(context, event)
        except (AirflowException, ApiException) as error:
            self.log.debug("the pod's operator says: %s", error)
        code, why = code_and_reason(
            self.seen,
            container=CONTAINER,
            status=event["status"],
            limit=limits_of(self.which, read_plan(self._folder(context)).study, self.settings),
            warnings=self.warnings,
            lines=self.lines,
        )
        self._end(context, code, why)

    def resume_execution(self, next_method: str, next_kwargs: Any, context: Any) -> Any:
        """See that a pod whose trigger has failed does not stay."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralError:
            self._know_pods()
            self._end_former(context, own=True)
            raise

    def _know_pods(self) -> None:
        """Say which pods are this task's, and where they are."""
        self.labels = {**self.which.labels, AIRFLOW: this_airflow()}
        self.in_cluster = in_cluster() or None

    def _end_former(self, context: Any, own: bool = False) -> None:
        """End what earlier tries have left.

        The operator would go on with such a pod. But where a waiting task was cleared the
        triggerer is about to end it, and steps go on by themselves from where they were.

        Args:
            context: Airflow's.
            own: Whether the pod of this try is ended too.
        """
        selector = self._build_find_pod_label_selector(context, exclude_checked=False)
        found = self.client.list_namespaced_pod(self.settings.namespace, label_selector=selector)
        for pod in found.items:
            former = pod.metadata.labels["try_number"] != str(context["ti"].try_number)
            if own or former:
                self.log.info("ending pod %s of try %s", pod.metadata.name, pod.metadata.labels)
                self.pod_manager.delete_pod(pod)

    def find_pod(self, namespace: str, context: Any, *, exclude_checked: bool = True) -> Any:
        """Find this task's pod, but none that is already ending."""
        pod = super().find_pod(namespace, context, exclude_checked=exclude_checked)
        return None if pod is None or pod.metadata.deletion_timestamp is not None else pod

    def cleanup(
        self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None
    ) -> None:
        """Keep what Kubernetes knows of the pod before it is deleted."""
        self.seen = remote_pod
        try:
            events = self.pod_manager.read_pod_events(remote_pod).items
            self.warnings = [each.message for each in events if each.type == "Warning"]
        except ApiException as error:
            self.log.warning("the pod's events cannot be read: %s", _words(error))
        super().cleanup(pod, remote_pod, xcom_result, context)

    def _write_logs(self, pod: Any, follow: bool = False, since_time: Any = None) -> None:  # noqa: ARG002
        """Keep the step's output; Airflow's log gets what the trigger has not written yet.

        The log is never followed: a pod that was given up may hang for ever.
        """
        answer = self.client.read_namespaced_pod_log(
            name=pod.metadata.name,
            namespace=pod.metadata.namespace,
            container=CONTAINER,
            timestamps=True,
            tail_lines=LOG_LINES,
            # Otherwise the client hands out Python's spelling of the bytes.
            _preload_content=False,
        )
        text = answer.data.decode("utf-8", errors="replace")
        # The trigger leaves out the second in which it reads, so that one is written here.
        since = f"{since_time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" if since_time else ""
        for line in text.splitlines():
            when, _, words = line.partition(" ")
            self.lines.append(words)
            if when[: len(since)] >= since:
                self.log.info("[%s] %s", CONTAINER, words)

    def _end(self, context: Any, code: int, why: str) -> None:
        """Leave what a launched step leaves, and tell Airflow how it ended."""
        folder, key = self._folder(context), ".".join(filter(None, (self.step, self.hospital)))
        if code == ExitCode.DONE:
            code, why = self._handed_over(folder)
        log = folder.path / "logs" / f"{key}.log"
        write_atomically(log, "".join(f"{line}\n" for line in self.lines).encode())
        ending = Ending(
            step=self.step,
            hospital=self.hospital,
            code=int(code),
            message=why,
            log=str(log),
            seconds=_seconds(self.seen),
        )
        text = json.dumps(ending.model_dump(mode="json")).encode() + b"\n"
        write_atomically(folder.path / "ends" / f"{key}.json", text)
        raise_for(ending, context["ti"] if self.soft else None)
        tell_assets(self, folder, context)

    def _handed_over(self, folder: RunFolder) -> tuple[int, str]:
        """Fetch what the pod has left; a pod that leaves no manifest has not done its step."""
        try:
            if self.step not in PRIVATE_STEPS:
                folder.fetch(self.step, self.hospital)
            if folder.find(self.step, self.hospital) is None:
                return ExitCode.FAILED, (
                    f"the pod ended well, but the step's manifest is not in {self.settings.store}"
                )
        except FedriskError as error:
            return error.exit_code, str(error)
        return ExitCode.DONE, ""

    def _folder(self, context: Any) -> RunFolder:
        return open_run(self.settings, fedrisk_run(context["run_id"]))


def annotations_of(context: Mapping[str, Any]) -> dict[str, str]:
    """What a pod says of the task instance that it works for."""
    ti = context["ti"]
    index = -1 if ti.map_index is None else ti.map_index
    return {DAG: ti.dag_id, RUN: ti.run_id, TASK: ti.task_id, INDEX: str(index)}


def pod_timeout(work: float, compute: Any) -> timedelta:
    """How long a task may take whose step gets ``work`` seconds: room, start and work."""
    return timedelta(seconds=compute.place_within + compute.start_within + work)


def _words(error: ApiException) -> str:
    """What Kubernetes' answer says, without headers."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)


def _seconds(pod: Any) -> float:
    """From the pod's making to its container's end, in seconds."""
    for each in (pod.status.container_statuses or ()) if pod is not None else ():
        if each.name == CONTAINER and each.state.terminated is not None:
            ended = each.state.terminated.finished_at
            if ended is not None:
                return round((ended - pod.metadata.creation_timestamp).total_seconds(), 3)
    return 0.0
