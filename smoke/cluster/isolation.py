"""What a hospital cannot do: read what is another's, or join with a strange key."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from smoke.cluster.lab import PodSeen
from smoke.cluster.probes import PROBE, STRANGER
from smoke.cluster.site import TOLERATION, Site
from smoke.cluster.tools import CALL
from smoke.table import Table
from smoke.waits import NotReached, until
from tasks.objects import put


def check_pods(seen: dict[str, PodSeen], node: str, table: Table) -> None:
    """Look at all pods of the runs: each had its owner's secret, account and volumes only.

    Args:
        seen: The pods.
        node: The node for training.
        table: Gets the checks.
    """
    wrong, placed = list[str](), dict[str, str]()
    hospitals = set()
    for pod in seen.values():
        hospital = pod.labels.get("fedrisk.io/hospital", "")
        own = f"fedrisk-hospital-{hospital}" if hospital else f"fedrisk-{pod.owner}"
        allowed = {own} | ({"fedrisk-superlink"} if pod.step == "federated" else set())
        hospitals.add(hospital)
        if pod.secrets - allowed or pod.volumes or pod.spec.service_account_name != own:
            wrong.append(f"{pod.name}: {sorted(pod.secrets)}, {pod.spec.service_account_name}")
        if pod.spec.automount_service_account_token is not False:
            wrong.append(f"{pod.name}: a token is mounted")
        if pod.step in ("federated", "join", "central", "local", "score") and pod.node:
            placed[pod.name] = pod.node
            if (pod.spec.node_selector or {}).get("workload") != "federated-learning":
                wrong.append(f"{pod.name}: not kept to the nodes for training")
            if ("fl-training", "true") not in pod.tolerates:
                wrong.append(f"{pod.name}: its template puts up with no taint")
    table.check(
        "own-account",
        "each pod has its owner's account and secret, no token and nobody's volume",
        not wrong and len(hospitals) > 3,
        "; ".join(wrong) or f"{len(seen)} pods of {len(hospitals) - 1} hospitals",
    )
    table.check(
        "training-node",
        "training pods ran on the labelled and tainted node",
        bool(placed) and set(placed.values()) == {node},
        f"{len(placed)} on {', '.join(sorted(set(placed.values())))}",
    )


def check_access(site: Site, table: Table) -> None:
    """Try, as hospital-1, to get at what is hospital-2's.

    Args:
        site: Where.
        table: Gets the checks.
    """
    own, other = "hospital-1", "hospital-2"
    with site.acting_for(other):
        put(f"s3://fl-demo-data-{other}", "theirs", b"x")
    pod = site.cluster.core.read_namespaced_pod(
        "fedrisk-s3-0", site.cluster.namespace, _request_timeout=CALL
    )
    code = f"OWN, OTHER, STORE = {own!r}, {other!r}, {pod.status.pod_ip!r}\n{PROBE}"
    text = _run_pod(site, "fedrisk-smoke-probe", own, ["python", "-c", code], 280)
    line = next((x for x in text.splitlines() if x.startswith("PROBE")), "")
    if not table.check(
        "asks", "a pod of hospital-1 can ask", bool(line), text[-500:] if not line else ""
    ):
        return
    found: dict[str, Any] = json.loads(line.removeprefix("PROBE"))
    for what, words in (
        ("own-bucket", "its own bucket is open to it"),
        ("own-prefix", "its own part of the runs is open to it"),
    ):
        table.check(what, words, found[what][0] == "done", found[what])
    for what, words in (
        ("list-other", "another hospital's bucket cannot be listed"),
        ("read-other", "another hospital's object cannot be read"),
        ("write-other", "nothing can be written to another hospital's bucket"),
        ("write-prefix", "nothing can be written to another hospital's part of the runs"),
        ("write-consortium", "nothing can be written to the consortium's part of the runs"),
    ):
        refused = found[what][0] == "refused" and "key may not" in found[what][1]
        table.check(what, words, refused, found[what][1])
    table.check(
        "no-other-secret",
        "no token and no other secret is in its pod",
        not found["token"] and not found["other key"],
        f"{found['token']} {found['other key']}",
    )
    table.check("ports", "the store's inner ports are closed", not found["ports"], found["ports"])
    closed = found["control"]
    table.check(
        "control-closed",
        "the SuperLink's control API is closed to it, its fleet API is not",
        closed["control/list-nodes"] == closed["runtime/x"] == 403 != closed["fleet/x"],
        closed,
    )
    status = _as_account(site, own, f"fedrisk-hospital-{other}")
    table.check(
        "own-token",
        "its service account's own token is refused another hospital's secret",
        status == 403,
        f"HTTP {status}",
    )


def _as_account(site: Site, hospital: str, secret: str) -> int:
    """HTTP status of reading a secret with a real token of the hospital's service account."""
    from kubernetes import client
    from kubernetes.client.exceptions import ApiException

    core, space = site.cluster.core, site.cluster.namespace
    # It is there: what is refused is not that it could not be found.
    core.read_namespaced_secret(secret, space, _request_timeout=CALL)
    token = site.cluster.token(f"fedrisk-hospital-{hospital}")
    config = client.Configuration()
    known = core.api_client.configuration
    config.host, config.ssl_ca_cert = known.host, known.ssl_ca_cert
    config.api_key = {"authorization": f"Bearer {token}"}
    try:
        with client.ApiClient(config) as own:
            client.CoreV1Api(own).read_namespaced_secret(secret, space, _request_timeout=CALL)
    except ApiException as error:
        return int(error.status)
    return 200


def check_rights(site: Site, table: Table) -> None:
    """See what the release's service accounts may ask of the API server.

    Args:
        site: Where.
        table: Gets the check.
    """
    may = site.cluster.may
    wrong = [
        f"{account} may get {what}"
        for account in ("fedrisk-hospital-hospital-1", "fedrisk-consortium", "fedrisk-pool")
        for what in ("secrets", "pods")
        if may(account, "get", what)
    ]
    wrong += [
        f"fedrisk-airflow may not {verb} pods"
        for verb in ("create", "delete", "watch")
        if not may("fedrisk-airflow", verb, "pods")
    ]
    wrong += ["fedrisk-airflow may get secrets"] * may("fedrisk-airflow", "get", "secrets")
    wrong += ["fedrisk-airflow may enter pods"] * may("fedrisk-airflow", "create", "pods", "exec")
    table.check(
        "rights",
        "Airflow's account starts and ends pods, the others ask for nothing",
        not wrong,
        ", ".join(wrong),
    )


def check_taint(site: Site, table: Table) -> None:
    """See that the node for training takes no pod that does not put up with its taint.

    Args:
        site: Where.
        table: Gets the checks.
    """
    name, command = "fedrisk-smoke-untolerating", ["true"]

    def refused() -> str:
        pod = site.cluster.core.read_namespaced_pod(
            name, site.cluster.namespace, _request_timeout=CALL
        )
        conditions = [c for c in pod.status.conditions or () if c.type == "PodScheduled"]
        return next((str(c.message) for c in conditions if c.status == "False"), "")

    told = ""
    with contextlib.suppress(NotReached), _pod(site, name, "hospital-1", command, ()):
        told = until(f"pod {name} is refused", refused, 180)
    table.check(
        "taint",
        "a pod that does not put up with the taint gets no room",
        "untolerated taint" in told,
        told,
    )


def check_stranger(site: Site, table: Table) -> None:
    """Try to join with a key that nobody has registered.

    Args:
        site: Where.
        table: Gets the checks.
    """
    command = ["python", "-c", STRANGER, "hospital-1"]
    text = _run_pod(site, "fedrisk-smoke-stranger", "hospital-1", command, 280)
    line = next((x for x in text.splitlines() if x.startswith("STRANGER")), "")
    table.check(
        "stranger",
        "a pod without a registered key cannot join",
        line.startswith("STRANGER refused"),
        line or text[-500:],
    )


def _run_pod(site: Site, name: str, hospital: str, command: list[str], limit: float) -> str:
    """Run a command as a pod of a hospital, and return what it said."""
    with _pod(site, name, hospital, command):

        def ended() -> bool:
            pod = site.cluster.core.read_namespaced_pod(
                name, site.cluster.namespace, _request_timeout=CALL
            )
            return pod.status.phase in ("Succeeded", "Failed")

        with contextlib.suppress(Exception):
            until(f"pod {name} has ended", ended, limit)
        return site.cluster.log(name)


@contextlib.contextmanager
def _pod(
    site: Site,
    name: str,
    hospital: str,
    command: list[str],
    tolerations: Sequence[dict[str, str]] = (TOLERATION,),
) -> Iterator[None]:
    """A pod like that of the hospital's step ``join``, with another command."""
    own = f"fedrisk-hospital-{hospital}"

    def key(of: str) -> dict[str, Any]:
        return {"name": of, "valueFrom": {"secretKeyRef": {"name": own, "key": of}}}

    mounts = {"tmp": "/tmp", "home": "/var/lib/fedrisk", "identity": "/etc/fedrisk/identity"}
    labels = {
        "app.kubernetes.io/name": "fedrisk",
        "app.kubernetes.io/part-of": "fedrisk-smoke",
        "fedrisk.io/owner": hospital,
        "fedrisk.io/role": "hospital",
    }
    container = {
        "name": "step",
        "image": f"fedrisk-federation:{site.tag}",
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "envFrom": [{"configMapRef": {"name": "fedrisk-settings"}}],
        "env": [
            key("AWS_ACCESS_KEY_ID"),
            key("AWS_SECRET_ACCESS_KEY"),
            {"name": "FEDRISK_IDENTITY", "value": "/etc/fedrisk/identity"},
            {"name": "FEDRISK_SUPERLINK", "value": "fedrisk-superlink:9092"},
        ],
        "volumeMounts": [{"name": n, "mountPath": p} for n, p in mounts.items()],
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
    }
    spec = {
        "serviceAccountName": own,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 300,
        "terminationGracePeriodSeconds": 2,
        "tolerations": list(tolerations),
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "home", "emptyDir": {}},
            {"name": "identity", "configMap": {"name": "fedrisk-ca"}},
        ],
    }
    body = {"apiVersion": "v1", "kind": "Pod", "spec": spec}
    body["metadata"] = {"name": name, "labels": labels}
    core, space = site.cluster.core, site.cluster.namespace
    site.cluster.delete_pod(name, 0)
    until(f"no pod {name} is left", lambda: not _there(site, name), 180)
    core.create_namespaced_pod(space, body, _request_timeout=CALL)
    try:
        yield
    finally:
        site.cluster.delete_pod(name, 0)


def _there(site: Site, name: str) -> bool:
    return any(pod.metadata.name == name for pod in site.cluster.pods())
