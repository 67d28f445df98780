"""The operator of the launcher ``kubernetes``: one step of a run as one pod.

A thin ``KubernetesPodOperator`` with defaults of our own. It creates the pod, waits without a
worker slot, and records its end (``recorded_step.py``).
"""

from __future__ import annotations

import time
from datetime import UTC
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import (
    FoundMoreThanOnePodFailure,
    KubernetesPodOperator,
)
from airflow.sdk.exceptions import AirflowException
from kubernetes.client import V1ObjectMeta, V1Pod
from kubernetes.client.exceptions import ApiException

from fedrisk_airflow.kubernetes.api_errors import (
    UNREACHABLE,
    error_text,
    is_lost,
    is_over,
    never_starts,
    retry,
)
from fedrisk_airflow.kubernetes.pod_outcome import code_and_reason, refused, seconds_of
from fedrisk_airflow.kubernetes.pod_spec import (
    CONTAINER,
    PodOf,
    annotations_of,
    limits_of,
    manifest_of,
)
from fedrisk_airflow.kubernetes.recorded_step import RecordedStep, on_failure
from fedrisk_airflow.kubernetes.server_wait import no_server_reason
from fedrisk_airflow.step_outcome import emit_assets, this_airflow
from tasks.errors import ExitCode
from tasks.launch.pods import AIRFLOW, POD_GRACE, in_cluster, kubeconfig
from tasks.run.ending import Ending
from tasks.run.plan import Plan

DEFAULTS: dict[str, Any] = {
    # A waiting task takes no worker's slot, and a killed scheduler leaves the pod at work.
    "deferrable": True,
    # Deferred tasks lose the sidecar's XCom; the step's manifest is the result.
    "do_xcom_push": False,
    "on_finish_action": "delete_pod",
    "on_kill_action": "delete_pod",
    "termination_message_policy": "FallbackToLogsOnError",
    "termination_grace_period": POD_GRACE,
    "log_events_on_failure": True,
    # A pod's whole description hides the one line with the reason.
    "log_pod_spec_on_failure": False,
    "base_container_name": CONTAINER,
    "startup_check_interval_seconds": 2,
    "poll_interval": 2,
    # The step's lines reach the task's log while it works. Waiting for the end of the pod's log
    # would never return for a pod that hangs.
    "logging_interval": 10,
    # In a cluster its service account, elsewhere KUBECONFIG; no connection has to be made.
    "kubernetes_conn_id": None,
    "on_failure_callback": on_failure,
}
"""Arguments of every pod operator."""
LOG_LINES = 20_000
"""The end of a step's output that is kept."""
FIRST_CALL = 120.0
"""Seconds that a cluster which does not answer is asked before a pod is started."""
LOOK = 30.0
"""Seconds that it is asked for a pod that was waited for, in a worker's slot."""
WATCH_AGAIN = 600.0
"""Seconds for which a pod that cannot be watched is waited for all the same."""
STEADY = 300.0
"""Seconds after which a watch that ends counts as one that had worked."""


class PodStep(RecordedStep, KubernetesPodOperator):
    """Run one step as a pod.

    Args:
        work_within: Seconds that the step itself gets once its pod runs.
        kwargs: What every step's operator takes, and ``KubernetesPodOperator``.
    """

    template_fields = RecordedStep.template_fields

    def __init__(self, *, work_within: float = 3600, **kwargs: Any) -> None:
        super().__init__(**{**DEFAULTS, **kwargs})
        self.work_within = work_within
        self.seen: Any = None
        self.ending: Ending | None = None
        self.warnings: list[str] = []
        self.lines: list[str] = []

    @property
    def which(self) -> PodOf:
        """The pod that the step needs."""
        return PodOf(self.step, self.hospital, self.settings.federation == "standing")

    def execute(self, context: Any) -> None:
        """Start the pod and wait for it in the triggerer."""
        with self.recording(context):
            folder = self.folder(context)
            plan = self.plan(folder)
            self.skip_where_it_does_not_apply(plan)
            self._know_pods(plan)
            retry(lambda: self._end_former(context), FIRST_CALL)
            if (done := folder.find(self.step, self.hospital)) is not None:
                self.log.info("step %s is done already; its manifest is kept", self.step)
                # Replaces the ending of an earlier try.
                self.record(context).write(ExitCode.DONE, "", done.seconds)
                emit_assets(self, folder, context)
                return
            pod = self.which
            if why := no_server_reason(pod, self.settings, folder.run, context["ti"]):
                self.end(context, ExitCode.REFUSED, why)
            self.namespace, self.name = self.settings.namespace, pod.name
            self.pod_template_dict = manifest_of(
                pod,
                plan,
                self.settings,
                study=self.study,
                annotations=annotations_of(context, folder.run),
            )
            # The last bound, enforced by the cluster alone, if Airflow loses track of the pod.
            self.active_deadline_seconds = int(plan.study.compute.start_within + self.work_within)
            try:
                super().execute(context)
            except ApiException as error:
                self.end(context, *refused(error.status or 0, error_text(error)))

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> None:
        """Go on once the pod has ended, timed out, or could not be watched.

        Raises:
            AirflowFailException: The step ended with an exit code after which no retry helps.
            AirflowException: It ended otherwise, and is tried again.
            AirflowSkipException: The run can do without it.
            TaskDeferred: The pod is still there, and is waited for again.
        """
        with self.recording(context):
            plan = self.plan(self.folder(context))
            self._know_pods(plan)
            event, trouble = self._look(context, event)
            if self.seen is None or not is_lost(self.seen):
                # Its own count of tries knows nothing of how long they took.
                given = {**event, "_redefer_count": self.MAX_REDEFER_ATTEMPTS}
                try:
                    super().trigger_reentry(context, given)
                except (AirflowException, *UNREACHABLE) as error:
                    self.log.debug("the provider's operator: %s", error)
            code, why = code_and_reason(
                self.seen,
                container=CONTAINER,
                status=event["status"],
                limit=limits_of(self.which, plan.study, self.settings),
                warnings=self.warnings,
                lines=self.lines,
            )
            if trouble:
                code, why = ExitCode.TRANSIENT, trouble
                self.end_work(context)
            self.end(context, code, why)

    def resume_execution(self, next_method: str, next_kwargs: Any, context: Any) -> Any:
        """Delete the pod of a failed trigger, and record the failure."""
        with self.recording(context):
            return super().resume_execution(next_method, next_kwargs, context)

    def _look(self, context: Any, event: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """See the pod as it is now, and go back to waiting where it could not be watched.

        Returns:
            The event, and why the pod is deleted although it may be running; empty if it is not.
        """
        name, namespace = event["name"], event["namespace"]
        try:
            self.seen = retry(lambda: self.hook.get_pod(name, namespace), LOOK)
        except UNREACHABLE as error:
            if isinstance(error, ApiException) and error.status == 404:
                return event, ""
            trouble = f"Kubernetes does not answer as it should: {error_text(error)}"
        else:
            # The trigger reports a pod that cannot start with the same status.
            hopeless = is_over(self.seen, CONTAINER) or never_starts(self.seen)
            away = event["status"] == "error" and not hopeless
            if not away or is_lost(self.seen):
                return event, ""
            # The trigger's client puts the answer's headers into its message.
            message = event.get("message", "").partition("HTTP response headers")[0]
            trouble = f"the pod could not be watched to its end: {' '.join(message.split())}"
        self._watch_again(context, event, trouble)
        # As after a timeout, so that the task does not wait here for the pod's end.
        return {**event, "status": "timeout", "message": trouble}, trouble

    def _watch_again(self, context: Any, event: dict[str, Any], trouble: str) -> None:
        """Wait for the pod in the triggerer again, unless that was of no use for too long."""
        now = time.time()
        again = now - event.get("_watched_again", 0.0) < STEADY
        since = event["_trouble_since"] if again else now
        if now - since > WATCH_AGAIN:
            return
        self.log.warning("%s; the pod %s is waited for again", trouble, event["name"])
        self.trigger_kwargs = {"_watched_again": now, "_trouble_since": since}
        self.pod = V1Pod(metadata=V1ObjectMeta(name=event["name"], namespace=event["namespace"]))
        self.invoke_defer_method(last_log_time=event.get("last_log_time"), context=context)

    def _know_pods(self, plan: Plan | None = None) -> None:
        """Set which pods are this task's, where they are, and how long one may take to start."""
        self.labels = {**self.which.labels, AIRFLOW: this_airflow()}
        self.in_cluster, self.config_file = in_cluster(), kubeconfig()
        if plan is not None:
            self.schedule_timeout_seconds = int(plan.study.compute.place_within)
            self.startup_timeout_seconds = int(plan.study.compute.start_within)

    def end_work(self, context: Any) -> None:
        """End the pod of this try, if there is one and the cluster lets us."""
        try:
            self._know_pods()
            self._end_former(context, own=True)
        except Exception as error:  # noqa: BLE001  (the step's own failure is reported, not this one)
            self.log.warning("its pod may be left, to the next try or the sweep: %s", error)

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
        """Find this task's pod, but none that is already ending: on a lost node one stays so."""
        selector = self._build_find_pod_label_selector(context, exclude_checked=exclude_checked)
        listed = retry(
            lambda: self.client.list_namespaced_pod(namespace, label_selector=selector), LOOK
        )
        found = [pod for pod in listed.items if pod.metadata.deletion_timestamp is None]
        if len(found) > 1:
            raise FoundMoreThanOnePodFailure(", ".join(pod.metadata.name for pod in found))
        return found[0] if found else None

    def cleanup(
        self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None
    ) -> None:
        """Keep what Kubernetes knows of the pod before it is deleted."""
        self.seen = remote_pod
        try:
            events = self.pod_manager.read_pod_events(remote_pod).items
            self.warnings = [each.message for each in events if each.type == "Warning"]
        except UNREACHABLE as error:
            self.log.warning("the pod's events cannot be read: %s", error_text(error))
        super().cleanup(pod, remote_pod, xcom_result, context)

    def _write_logs(self, pod: Any, follow: bool = False, since_time: Any = None) -> None:  # noqa: ARG002
        """Keep the step's output; Airflow's log gets what the trigger has not written yet.

        The log is never followed: a pod past its deadline may hang indefinitely.
        """
        answer = self.client.read_namespaced_pod_log(
            name=pod.metadata.name,
            namespace=pod.metadata.namespace,
            container=CONTAINER,
            timestamps=True,
            tail_lines=LOG_LINES,
            # Otherwise the client returns the repr of the bytes.
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

    def seconds(self) -> float:
        """See ``RecordedStep.seconds``."""
        return seconds_of(self.seen, CONTAINER)
