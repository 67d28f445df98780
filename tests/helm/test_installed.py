"""The chart on the real cluster: installed, tested, grown by a hospital, and gone again."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helm_chart import API, CHART, values_of
from kubernetes_cluster import (
    get,
    helm,
    kubectl,
    load_images,
    namespace,
    volumes,
    volumes_of_user,
)
from ruamel.yaml import YAML

from smoke.cluster.site import unmark_node
from smoke.cluster.tools import Cluster
from smoke.waits import NotReached, until
from tasks.federation.deployment.certificates import make_node_key

SPACE, RELEASE = "chart-test", "fedrisk"
TAG = os.environ.get("FEDRISK_TEST_TAG", "dev")
IMAGES = [f"fedrisk-federation:{TAG}", f"fedrisk-mlflow:{TAG}", "chrislusf/seaweedfs:4.48"]
HOSPITALS = ["hospital-1", "hospital-2", "hospital-3"]
VALUES = ["", "kind", "plain", "eks", "hospital", "everything"]

READ = """
import sys, os, obstore
from obstore.store import S3Store
store = S3Store(sys.argv[1], client_options={"allow_http": True}, retry_config={"max_retries": 0})
try:
    obstore.put(store, "chart-test", b"1")
    print(bytes(obstore.get(store, "chart-test").bytes()).decode())
except Exception as error:
    print("refused" if "403" in str(error) or "AccessDenied" in str(error) else error)
"""
PORTS = """
import socket, ssl, sys
for port in (8888, 18888, 9333, 19333, 8080, 18080):
    try:
        socket.create_connection((sys.argv[1], port), timeout=3).close()
        print("open", port)
    except OSError:
        pass
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    channel = context.wrap_socket(socket.create_connection((sys.argv[1], 18333), timeout=5))
    channel.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")
    print("answered", channel.recv(100))
except ssl.SSLError as error:
    print(error.reason)
"""


METRICS = """
import sys, urllib.request
for url in sys.argv[1:]:
    print(urllib.request.urlopen(url, timeout=20).read().decode())
"""
NO_IMAGE = f"sha256:{'0' * 64}"


def identities(hospitals: list[str]) -> str:
    """SeaweedFS's identities: a hospital has its own bucket and its part of the runs."""
    found: list[dict[str, Any]] = [
        {
            "name": "consortium",
            "credentials": [{"accessKey": "consortium", "secretKey": "of-the-consortium"}],
            "actions": [
                *("Read:fedrisk-runs", "List:fedrisk-runs"),
                "Write:fedrisk-runs/consortium/*",
            ],
        }
    ]
    for name in hospitals:
        bucket = f"fl-demo-data-{name}"
        own = [f"{action}:{bucket}" for action in ("Read", "List", "Write")]
        runs = ["Read:fedrisk-runs", "List:fedrisk-runs", f"Write:fedrisk-runs/{name}/*"]
        keys = [{"accessKey": name, "secretKey": f"of-{name}"}]
        found.append({"name": name, "credentials": keys, "actions": own + runs})
    return json.dumps({"identities": found})


def apply_secret(name: str, **data: str) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": SPACE},
        "stringData": data,
    }
    kubectl("apply", "-f", "-", text=json.dumps(body))


def state(name: str) -> dict[str, Any]:
    """A pod's id, whether it is ready, and how often it was restarted."""
    pod = get("pod", name, SPACE)
    statuses = pod["status"].get("containerStatuses", [])
    ready = [c["status"] for c in pod["status"].get("conditions", []) if c["type"] == "Ready"]
    return {
        "uid": pod["metadata"]["uid"],
        "ready": ready == ["True"],
        "running": any("running" in status["state"] for status in statuses),
        "restarts": sum(status["restartCount"] for status in statuses),
    }


def is_now(what: str, name: str) -> bool:
    """Whether a pod, which may not have been made yet, is ``ready`` or ``running``."""
    try:
        return bool(state(name)[what])
    except RuntimeError:
        return False


def waits_for_an_image(name: str) -> bool:
    """Whether a pod is there and cannot start for want of its image."""
    try:
        statuses = get("pod", name, SPACE)["status"].get("containerStatuses", [])
    except RuntimeError:
        return False
    reasons = [status["state"].get("waiting", {}).get("reason", "") for status in statuses]
    return any("Image" in reason for reason in reasons)


def run_in(pod: str, code: str, *arguments: str) -> str:
    return kubectl("exec", pod, "--", "python", "-c", code, *arguments, namespace=SPACE).strip()


def may(account: str, verb: str, what: str, *more: str) -> bool:
    user = f"system:serviceaccount:{SPACE}:{account}"
    try:
        said = kubectl("auth", "can-i", verb, what, *more, "--as", user, namespace=SPACE)
        return said.strip() == "yes"
    except RuntimeError:
        return False


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """A key pair a hospital: private and public."""
    found = {}
    for name in HOSPITALS:
        private, public = make_node_key(tmp_path_factory.mktemp(name))
        found[name] = (private.read_text(), public.read_text().strip())
    return found


@pytest.fixture(scope="module")
def space(cluster: Path, keys: dict[str, tuple[str, str]]) -> Iterator[str]:
    """A namespace with the secrets that an operator puts there."""
    for image in IMAGES:
        found = subprocess.run(
            ["docker", "image", "inspect", image], capture_output=True, timeout=60
        )
        if found.returncode:
            reason = f"{image} is not built (make images)"
            if os.environ.get("REQUIRE_SHARED_DATA") == "1":
                pytest.fail(f"this must not be skipped here: {reason}")
            pytest.skip(reason)
    load_images(*IMAGES)
    # A command that was killed may have left its taint, which keeps this release from the node.
    unmark_node(Cluster(str(cluster)))
    with namespace(SPACE), volumes_of_user():
        apply_secret("fedrisk-s3-identities", **{"s3.json": identities(HOSPITALS[:2])})
        access = {"AWS_ACCESS_KEY_ID": "consortium", "AWS_SECRET_ACCESS_KEY": "of-the-consortium"}
        apply_secret("fedrisk-consortium", **access)
        for name in HOSPITALS:
            access = {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": f"of-{name}"}
            secret = {"node.key": keys[name][0], **access}
            apply_secret(f"fedrisk-hospital-{name}", **secret)
        yield SPACE


class Release:
    """The release, with the values that it was last given."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "values.yaml"
        self.hospitals: dict[str, Any] = {}

    def put(self, *options: str) -> None:
        values = {
            "images": {"tag": TAG, "pullPolicy": "Never"},
            "hospitals": self.hospitals,
            "settings": {"federation": "standing"},
        }
        YAML(typ="safe", pure=True).dump(values, self.file)
        kind = ["-f", str(CHART / "values-kind.yaml"), "--set", "hospitals.hospital-3=null"]
        helm(
            *("upgrade", "--install", RELEASE, str(CHART), "-n", SPACE),
            *(*(kind if "hospital-3" not in self.hospitals else kind[:2]), "-f", str(self.file)),
            *options,
            timeout=420,
        )


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.slow
def test_the_api_server_accepts_all_that_is_rendered(cluster: Path, name: str) -> None:
    text = helm("template", RELEASE, str(CHART), "-n", "default", *API, *values_of(name))
    said = kubectl("apply", "--dry-run=server", "-f", "-", text=text, namespace="default")
    lines = said.splitlines()
    assert len(lines) >= text.count("\nkind: ")
    assert all(line.endswith("(server dry run)") for line in lines)


@pytest.mark.stack
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_release_from_its_install_to_its_end(
    space: str, keys: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    release = Release(tmp_path)
    release.hospitals = {
        name: {"publicKey": keys[name][1], "supernode": {"enabled": True}} for name in HOSPITALS[:2]
    }
    # --wait: SuperNodes are ready once the SuperLink has let them in.
    release.put("--wait", "--timeout", "6m")
    tested = helm("test", RELEASE, "-n", space, timeout=300)
    assert tested.count("Succeeded") == 3, tested

    # One hospital's key opens its own bucket and no other; nothing but S3 listens.
    node = "fedrisk-hospital-hospital-1-0"
    assert run_in(node, READ, "fl-demo-data-hospital-1") == "1"
    assert run_in(node, READ, "fl-demo-data-hospital-2") == "refused"
    address = get("pod", "fedrisk-s3-0", space)["status"]["podIP"]
    assert "CERTIFICATE_REQUIRED" in run_in(node, PORTS, address)
    assert "open" not in run_in(node, PORTS, address)
    # Both tell Prometheus, which calls MLflow's pod by its address and the store by its service.
    server = get("pod", "fedrisk-mlflow-0", space)["status"]["podIP"]
    told = run_in(node, METRICS, f"http://{server}:5000/metrics", "http://fedrisk-s3:9327/metrics")
    assert "mlflow_http_request_total" in told
    assert "SeaweedFS_" in told
    for account in ("fedrisk-hospital-hospital-1", "fedrisk-consortium", "fedrisk-pool"):
        assert not may(account, "get", "secrets")
        assert not may(account, "get", "pods")
    for verb in ("create", "delete", "watch"):
        assert may("fedrisk-airflow", verb, "pods")
    assert not may("fedrisk-airflow", "get", "secrets")
    # `pods/exec` would be a pod of that name.
    assert not may("fedrisk-airflow", "create", "pods", "--subresource=exec")

    # A third hospital: without a registered key it stays outside, with one it is let in, and
    # nothing that stands is restarted.
    standing = ["fedrisk-superlink-0", "fedrisk-s3-0", "fedrisk-mlflow-0", node]
    before = {name: state(name) for name in standing}
    certificate = get("secret", "fedrisk-superlink", space)["data"]
    apply_secret("fedrisk-s3-identities", **{"s3.json": identities(HOSPITALS)})
    release.hospitals["hospital-3"] = {"supernode": {"enabled": True}}
    release.put()
    third = "fedrisk-hospital-hospital-3-0"
    until("the third SuperNode runs", lambda: is_now("running", third), 90)
    # Whoever is known is let in within seconds; a config map takes at most 90 s to arrive.
    with pytest.raises(NotReached):
        until("a stranger is let in", lambda: state(third)["ready"], 30)
    release.hospitals["hospital-3"]["publicKey"] = keys["hospital-3"][1]
    release.put()
    until("the third SuperNode is let in", lambda: state(third)["ready"], 300)
    assert state(third)["restarts"] == 0
    until(
        "the store knows the third hospital",
        lambda: run_in(third, READ, "fl-demo-data-hospital-3") == "1",
        150,
    )
    assert {name: state(name) for name in standing} == before
    assert get("secret", "fedrisk-superlink", space)["data"] == certificate

    # A pod that never gets ready is replaced by the upgrade that puts it right.
    release.put("--set", f"images.digests.mlflow={NO_IMAGE}")
    until("MLflow has no image", lambda: waits_for_an_image("fedrisk-mlflow-0"), 90)
    release.put()
    until("MLflow is back", lambda: is_now("ready", "fedrisk-mlflow-0"), 180)
    assert {name: state(name) for name in standing if "mlflow" not in name} == {
        name: each for name, each in before.items() if "mlflow" not in name
    }

    # The SuperLink comes back, and the hospitals with it.
    kubectl("delete", "pod", "fedrisk-superlink-0", namespace=space, timeout=120)
    nodes = [f"fedrisk-hospital-{name}-0" for name in HOSPITALS]
    until("the SuperLink is back", lambda: is_now("ready", "fedrisk-superlink-0"), 180)
    log = ["logs", "fedrisk-superlink-0"]
    until(
        "the hospitals are registered again",
        lambda: all(f"registered {n}" in kubectl(*log, namespace=space) for n in HOSPITALS),
        180,
    )
    until("the hospitals are back", lambda: all(state(n)["ready"] for n in nodes), 180)

    helm("uninstall", RELEASE, "-n", space, "--wait", "--timeout", "3m", timeout=240)
    kinds = (
        "statefulset,pod,service,configmap,serviceaccount,role,rolebinding,networkpolicy,"
        "poddisruptionbudget,persistentvolumeclaim"
    )
    until("the volumes are gone", lambda: not volumes(space), 60)
    left = kubectl("get", kinds, "-o", "name", namespace=space).split()
    assert sorted(left) == ["configmap/kube-root-ca.crt", "serviceaccount/default"]
    secrets = kubectl("get", "secrets", "-o", "name", namespace=space).split()
    ours = ["s3-identities", "consortium", *(f"hospital-{name}" for name in HOSPITALS)]
    assert sorted(secrets) == sorted(f"secret/fedrisk-{name}" for name in ours)
