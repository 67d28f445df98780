"""The parties of a federation in a cluster: their keys and secrets, and the chart's release.

Keys are made with the commands that a consortium uses: ``fedrisk federation init`` and ``fedrisk
hospital add``.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from smoke.cluster.tools import CALL, OURS, Cluster, ready
from smoke.command import ROOT
from smoke.waits import until
from tasks.lake.identities import SHARED, Key, seaweedfs_identities

RELEASE = "fedrisk"
CHART = ROOT / "helm" / "fedrisk"
SUPERLINK = "fedrisk-superlink:9092"
POOL_LABEL, TAINT = {"workload": "federated-learning"}, "fl-training"
ADDED = "fedrisk.io/smoke-added"
"""Annotation of a node: which of label and taint the smoke command has put there."""
TOLERATION = {"key": TAINT, "operator": "Exists"}
_ADDED_TAINT = {"key": TAINT, "value": "true", "effect": "NoSchedule"}


@dataclass
class Site:
    """A consortium and its hospitals in one namespace.

    Attributes:
        cluster: Where.
        folder: For identities and kits.
        tag: Of the images.
        hospitals: Those that have a kit, in their order.
        keys: Each owner's key of the store.
        generation: Noted on the SuperLink's and MLflow's pods: another one makes new pods.
    """

    cluster: Cluster
    folder: Path
    tag: str
    hospitals: list[str] = field(default_factory=list)
    keys: dict[str, Key] = field(default_factory=dict)
    generation: int = 1

    @property
    def federation(self) -> Path:
        """Certificates of the consortium."""
        return self.folder / "federation"

    def kit(self, hospital: str) -> Path:
        """A hospital's start-up kit."""
        return self.folder / "kits" / hospital

    @cached_property
    def launcher(self) -> Path:
        """Kubeconfig of the account that the chart makes for Airflow: it may what that may."""
        return self.cluster.as_account("fedrisk-airflow", self.folder / "airflow.kubeconfig")

    def init(self) -> None:
        """Make the consortium's certificates, and the keys of those that are no hospital."""
        _fedrisk(
            *("federation", "init", "--out", str(self.federation)),
            FEDRISK_NAMESPACE=self.cluster.namespace,
        )
        for owner in SHARED:
            self.keys[owner] = _new_key(owner)

    def add(self, *hospitals: str) -> None:
        """Give hospitals a start-up kit, and so a registered key."""
        for name in hospitals:
            key = self.keys[name] = _new_key(name)
            file = self.folder / f"{name}.env"
            file.write_text(_lines(_aws(key)), encoding="utf-8")
            _fedrisk(
                *("hospital", "add", name, "--superlink", SUPERLINK),
                *("--out", str(self.kit(name)), "--credentials", str(file)),
                *("--registered", str(self.folder / "registered")),
                *("--authority", str(self.federation / "ca.crt")),
                FEDRISK_LAKE="s3a://fl-demo-data-{hospital}",
            )
            self.hospitals.append(name)

    def put_secrets(self) -> None:
        """Make every owner's secret, the SuperLink's and the store's in the namespace."""
        own = {name: (self.federation / name).read_text() for name in ("ca.crt", "tls.crt")}
        own["tls.key"] = (self.federation / "tls.key").read_text()
        self.cluster.put_secret("fedrisk-superlink", own)
        identities = seaweedfs_identities(self.keys, self.hospitals)
        self.cluster.put_secret("fedrisk-s3-identities", {"s3.json": json.dumps(identities)})
        for owner in SHARED:
            self.cluster.put_secret(f"fedrisk-{owner}", _aws(self.keys[owner]))
        for name in self.hospitals:
            key = (self.kit(name) / "node.key").read_text()
            self.cluster.put_secret(
                f"fedrisk-hospital-{name}", {"node.key": key, **_aws(self.keys[name])}
            )

    def values(self, *, supernodes: bool = False) -> Path:
        """Write the values that this site adds to those of kind.

        Args:
            supernodes: Whether every hospital has a standing SuperNode here.
        """
        yaml = YAML()
        entries: dict[str, Any] = {}
        for name in self.hospitals:
            kit = yaml.load(self.kit(name) / "registered.values.yaml")
            entries[name] = {
                "publicKey": str(kit["hospitals"][name]["publicKey"]),
                "supernode": {"enabled": supernodes},
            }
        notes = {"fedrisk.io/smoke": str(self.generation)}
        place = {"tolerations": [TOLERATION], "podAnnotations": notes}
        values = {
            "images": {"tag": self.tag},
            "tls": {"mode": "existing", "caCertificate": (self.federation / "ca.crt").read_text()},
            "hospitals": entries,
            # The one node here is the training node as well.
            "superlink": dict(place),
            "mlflow": dict(place),
            "training": {"dedicatedNodes": True},
        }
        path = self.folder / "values.yaml"
        yaml.dump(values, path)
        return path

    def helm(
        self,
        action: str,
        values: Path,
        limit: float = 300,
        chart: Path = CHART,
        *,
        wait: bool = True,
        options: Sequence[str] = (),
    ) -> None:
        """Install or upgrade the release, and wait until its pods are ready.

        Args:
            action: ``install`` or ``upgrade``.
            values: What ``values`` wrote.
            limit: Seconds.
            chart: Which chart; this checkout's by default.
            wait: False not to wait for the pods.
            options: More of Helm's options.
        """
        self.cluster.helm(
            *(action, RELEASE, str(chart), "-f", str(chart / "values-kind.yaml")),
            *("-f", str(values), "--timeout", f"{limit:.0f}s", *(("--wait",) if wait else ())),
            *options,
            limit=limit + 30,
        )

    def identities(self, *components: str) -> dict[str, str]:
        """What Kubernetes knows each component's first pod by: another pod has another.

        Args:
            components: Of the chart.
        """
        pods = {
            component: self.cluster.pods(f"app.kubernetes.io/component={component}")
            for component in components
        }
        return {name: str(found[0].metadata.uid) for name, found in pods.items() if found}

    def pods_ready(self, component: str, count: int, limit: float) -> list[Any]:
        """Wait until a component has so many ready pods, and return them."""
        selector = f"app.kubernetes.io/component={component}"

        def look() -> list[Any]:
            found = [pod for pod in self.cluster.pods(selector) if ready(pod)]
            return found if len(found) >= count else []

        found: list[Any] = until(f"{count} pods of {component} are ready", look, limit)
        return found

    def environment(self, owner: str = "consortium") -> dict[str, str]:
        """The variables with which a process of this machine acts for an owner."""
        return {
            "KUBECONFIG": str(self.launcher),
            "AWS_ENDPOINT_URL": f"http://{self.cluster.address('fedrisk-s3')}",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            **_aws(self.keys[owner]),
        }

    @contextlib.contextmanager
    def acting_for(self, owner: str) -> Iterator[None]:
        """Let this process act for an owner at the store, until the block is left."""
        before = dict(os.environ)
        os.environ.update(self.environment(owner))
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def mark_node(cluster: Cluster) -> str:
    """Label one node for training and keep others off it; returns its name.

    A node that is a training node already stays as it is. On another one it is noted what was
    added, so that this alone is taken away again.
    """
    nodes = cluster.core.list_node(_request_timeout=CALL).items
    node = next((each for each in nodes if _labelled(each) and _tainted(each)), nodes[0])
    name = str(node.metadata.name)
    added = [
        what for what, there in (("label", _labelled(node)), ("taint", _tainted(node))) if not there
    ]
    if not added:
        return name
    taints = _taints(node)
    if "taint" in added:
        taints.append(_ADDED_TAINT)
    metadata = {"labels": POOL_LABEL, "annotations": {ADDED: ",".join(added)}}
    body = {"metadata": metadata, "spec": {"taints": taints}}
    cluster.core.patch_node(name, body, _request_timeout=CALL)
    return name


def unmark_node(cluster: Cluster) -> None:
    """Take away what ``mark_node`` has added, of this command or of one that was killed."""
    for node in cluster.core.list_node(_request_timeout=CALL).items:
        added = (node.metadata.annotations or {}).get(ADDED, "").split(",")
        if added == [""]:
            continue
        metadata: dict[str, Any] = {"annotations": {ADDED: None}}
        body: dict[str, Any] = {"metadata": metadata}
        if "label" in added:
            metadata["labels"] = dict.fromkeys(POOL_LABEL)
        if "taint" in added:
            body["spec"] = {"taints": [t for t in _taints(node) if t["key"] != TAINT]}
        cluster.core.patch_node(node.metadata.name, body, _request_timeout=CALL)


@contextlib.contextmanager
def without_taint(cluster: Cluster) -> Iterator[None]:
    """Take the taint that ``mark_node`` has added from its node until the block is left.

    The chart's store tolerates none, and on a cluster of one node it has no other to start on.
    """
    nodes = cluster.core.list_node(_request_timeout=CALL).items
    marked = [n for n in nodes if "taint" in (n.metadata.annotations or {}).get(ADDED, "")]

    def patch(*more: dict[str, str]) -> None:
        for node in marked:
            taints = [*(each for each in _taints(node) if each["key"] != TAINT), *more]
            body = {"spec": {"taints": taints}}
            cluster.core.patch_node(node.metadata.name, body, _request_timeout=CALL)

    patch()
    try:
        yield
    finally:
        patch(_ADDED_TAINT)


def _labelled(node: Any) -> bool:
    return bool(POOL_LABEL.items() <= (node.metadata.labels or {}).items())


def _tainted(node: Any) -> bool:
    return any(each["key"] == TAINT for each in _taints(node))


def _taints(node: Any) -> list[dict[str, Any]]:
    return [
        {"key": each.key, "value": each.value, "effect": each.effect}
        for each in node.spec.taints or []
    ]


def left_behind(cluster: Cluster) -> list[str]:
    """What is in the namespace and was made by the chart or by a run, as ``kind/name``."""
    from kubernetes.dynamic import DynamicClient

    dynamic = DynamicClient(cluster.core.api_client)
    kinds = {
        "v1": ["Pod", "PersistentVolumeClaim", "Secret", "ConfigMap", "Service", "ServiceAccount"],
        "apps/v1": ["StatefulSet"],
        "networking.k8s.io/v1": ["NetworkPolicy"],
        "policy/v1": ["PodDisruptionBudget"],
        "rbac.authorization.k8s.io/v1": ["Role", "RoleBinding"],
    }
    found = []
    for version, names in kinds.items():
        for kind in names:
            resource = dynamic.resources.get(api_version=version, kind=kind)
            for each in resource.get(namespace=cluster.namespace).items:
                labels = dict(each.metadata.labels or {})
                ours = OURS.items() <= labels.items()
                common = each.metadata.name in ("default", "kube-root-ca.crt")
                if not ours and not common:
                    found.append(f"{kind.lower()}/{each.metadata.name}")
    volumes = cluster.core.list_persistent_volume(_request_timeout=CALL).items
    for each in volumes:
        claim = each.spec.claim_ref
        if claim is not None and claim.namespace == cluster.namespace:
            found.append(f"persistentvolume/{each.metadata.name}")
    return found


def _new_key(owner: str) -> Key:
    return Key(f"key-{owner}", secrets.token_urlsafe(24))


def _aws(key: Key) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": key.access, "AWS_SECRET_ACCESS_KEY": key.secret}


def _lines(variables: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def _fedrisk(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tasks.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    if done.returncode:
        words: Sequence[str] = arguments[:3]
        raise RuntimeError(f"fedrisk {' '.join(words)}: {(done.stderr or done.stdout)[-1000:]}")
    return done.stdout
