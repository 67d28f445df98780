"""A Kubernetes cluster as the smoke command uses it: the API's client and Helm."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from smoke.waits import until

CALL = 30
"""Seconds that the API server gets to answer a call."""
OURS = {"app.kubernetes.io/part-of": "fedrisk-smoke"}
"""Label of what the smoke command makes itself."""


class ForeignNamespace(Exception):  # noqa: N818  (the name is the message)
    """The namespace is there, and not for such a command to use or to delete."""


@dataclass(frozen=True)
class Cluster:
    """One namespace of a cluster, as its administrator has it.

    Attributes:
        kubeconfig: Path of the kubeconfig.
        namespace: Where everything is.
        helm: The program.
    """

    kubeconfig: str
    namespace: str = "fedrisk-smoke"
    helm_program: str = "helm"

    @cached_property
    def _client(self) -> Any:
        from kubernetes import config

        return config.new_client_from_config(self.kubeconfig)

    @cached_property
    def core(self) -> Any:
        """The core API: pods, secrets, services, nodes."""
        from kubernetes import client

        return client.CoreV1Api(self._client)

    @cached_property
    def rights(self) -> Any:
        """The API that says who may do what."""
        from kubernetes import client

        return client.AuthorizationV1Api(self._client)

    def helm(self, *arguments: str, limit: float = 300) -> str:
        """Run Helm in the namespace and return its output.

        Args:
            arguments: Its command line.
            limit: Seconds.

        Raises:
            RuntimeError: It failed; the message has its last words.
        """
        program = shutil.which(self.helm_program)
        if program is None:
            raise RuntimeError(f"{self.helm_program} is not on PATH: install Helm 3, or set HELM")
        done = subprocess.run(
            [program, "-n", self.namespace, *arguments],
            env={**os.environ, "KUBECONFIG": self.kubeconfig},
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"helm {arguments[0]}: {(done.stderr or done.stdout)[-3000:]}")
        return done.stdout

    def pods(self, selector: str = "") -> list[Any]:
        """The pods of the namespace."""
        found: list[Any] = self.core.list_namespaced_pod(
            self.namespace, label_selector=selector, _request_timeout=CALL
        ).items
        return found

    def log(self, pod: str) -> str:
        """A pod's log; empty where it is gone."""
        from kubernetes.client.exceptions import ApiException

        with contextlib.suppress(ApiException):
            # Left to itself the client hands the bytes over as Python would print them.
            answer = self.core.read_namespaced_pod_log(
                *(pod, self.namespace), _preload_content=False, _request_timeout=CALL
            )
            return bytes(answer.data).decode(errors="replace")
        return ""

    def delete_pod(self, pod: str, grace: int | None = None) -> None:
        """Delete a pod; one that is gone already is none to worry about.

        Args:
            pod: Its name.
            grace: Seconds that it gets; its own by default.
        """
        given = {} if grace is None else {"grace_period_seconds": grace}
        with _gone_is_fine():
            self.core.delete_namespaced_pod(pod, self.namespace, _request_timeout=CALL, **given)

    def put_secret(self, name: str, values: dict[str, str]) -> None:
        """Make or replace a secret."""
        from kubernetes.client import V1ObjectMeta, V1Secret
        from kubernetes.client.exceptions import ApiException

        labels = OURS
        secret = V1Secret(metadata=V1ObjectMeta(name=name, labels=labels), string_data=values)
        try:
            self.core.create_namespaced_secret(self.namespace, secret, _request_timeout=CALL)
        except ApiException as error:
            if error.status != 409:
                raise
            self.core.replace_namespaced_secret(name, self.namespace, secret, _request_timeout=CALL)

    def token(self, account: str, seconds: int = 600) -> str:
        """A token of a service account, as its pods have one."""
        from kubernetes import client

        wanted = client.V1TokenRequestSpec(audiences=[], expiration_seconds=seconds)
        made = self.core.create_namespaced_service_account_token(
            *(account, self.namespace, client.AuthenticationV1TokenRequest(spec=wanted)),
            _request_timeout=CALL,
        )
        return str(made.status.token)

    def as_account(self, account: str, path: Path) -> Path:
        """Write a kubeconfig for a service account, with its rights and no others."""
        known = self.core.api_client.configuration
        ca = Path(known.ssl_ca_cert).read_text(encoding="ascii")
        cluster = {"server": known.host, "certificate-authority-data": _base64(ca)}
        context = {"cluster": "it", "user": account, "namespace": self.namespace}
        tree = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": account, "user": {"token": self.token(account, 4 * 3600)}}],
            "contexts": [{"name": account, "context": context}],
            "current-context": account,
        }
        path.touch(mode=0o600)
        # YAML reads JSON.
        path.write_text(json.dumps(tree), encoding="utf-8")
        return path

    def make_namespace(self) -> None:
        """Make the namespace, after ending what an earlier command has left of it.

        Raises:
            ForeignNamespace: There is one that no such command has made.
        """
        from kubernetes.client import V1Namespace, V1ObjectMeta

        self.drop_namespace()
        meta = V1ObjectMeta(name=self.namespace, labels=OURS)
        self.core.create_namespace(V1Namespace(metadata=meta), _request_timeout=CALL)

    def drop_namespace(self, limit: float = 300.0) -> None:
        """Delete the namespace and wait until it is gone.

        Raises:
            ForeignNamespace: No such command has made it; it is left as it is.
        """
        self.check_namespace()
        with _gone_is_fine():
            self.core.delete_namespace(self.namespace, _request_timeout=CALL)
        until(f"namespace {self.namespace} is gone", lambda: not self._found(), limit)

    def check_namespace(self) -> None:
        """See that the namespace is not there, or was made by such a command.

        Raises:
            ForeignNamespace: Its volumes and keys would be deleted with it.
        """
        for found in self._found():
            labels = found.metadata.labels or {}
            if not OURS.items() <= labels.items():
                raise ForeignNamespace(
                    f"namespace {self.namespace} is there and has no label "
                    + ",".join(f"{key}={value}" for key, value in OURS.items())
                    + ", so it was made for something else: nothing was changed. Take another "
                    "cluster, or delete the namespace if it is not needed."
                )

    def _found(self) -> list[Any]:
        found = self.core.list_namespace(
            field_selector=f"metadata.name={self.namespace}", _request_timeout=CALL
        )
        return list(found.items)

    def run_in(self, pod: str, *command: str) -> str:
        """Run a command in a pod's container, and return what it prints."""
        from kubernetes import client, config
        from kubernetes.stream import stream

        # A client of its own: for as long as it streams, it does nothing else.
        core = client.CoreV1Api(config.new_client_from_config(self.kubeconfig))
        options = {"stdin": False, "stdout": True, "stderr": True, "tty": False}
        call = core.connect_get_namespaced_pod_exec
        given = {"command": list(command), "_request_timeout": CALL, **options}
        return str(stream(call, pod, self.namespace, **given))

    def may(self, account: str, verb: str, resource: str, subresource: str = "") -> bool:
        """Whether a service account has a right in the namespace."""
        from kubernetes import client

        wanted = client.V1ResourceAttributes(
            namespace=self.namespace, verb=verb, resource=resource, subresource=subresource
        )
        user = f"system:serviceaccount:{self.namespace}:{account}"
        review = client.V1SubjectAccessReview(
            spec=client.V1SubjectAccessReviewSpec(user=user, resource_attributes=wanted)
        )
        return bool(
            self.rights.create_subject_access_review(review, _request_timeout=CALL).status.allowed
        )

    def address(self, service: str, port: int = 0) -> str:
        """``host:port`` of a service from this machine, which must route to cluster addresses.

        Args:
            service: Its name.
            port: Which; its first by default.
        """
        found = self.core.read_namespaced_service(
            service, self.namespace, _request_timeout=CALL
        ).spec
        return f"{found.cluster_ip}:{port or found.ports[0].port}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


@contextlib.contextmanager
def _gone_is_fine() -> Any:
    from kubernetes.client.exceptions import ApiException

    try:
        yield
    except ApiException as error:
        if error.status != 404:
            raise


def ready(pod: Any) -> bool:
    """Whether a pod is ready and stays."""
    conditions = pod.status.conditions or ()
    ends = pod.metadata.deletion_timestamp is not None
    return not ends and any(c.type == "Ready" and c.status == "True" for c in conditions)
