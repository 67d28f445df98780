"""What a hospital cannot do: read what is another's, or join with a strange key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from smoke.cluster.lab import PodSeen
from smoke.cluster.site import TOLERATION, Site
from smoke.cluster.tools import CALL
from smoke.probes import OTHER, OWN, STRANGER, check_probe, check_stranger, probe
from smoke.table import Table
from smoke.waits import NotReached, until
from tasks.objects import put


def check_pods(seen: dict[str, PodSeen], node: str, table: Table) -> None:
    """Check that each pod of the runs had its owner's secret, account and volumes only.

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
                wrong.append(f"{pod.name}: its template tolerates no taint")
    table.check(
        "own-account",
        "each pod has its owner's account and secret, no token and no volume of others",
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
    """Try, as one hospital, to get at what is another's."""
    with site.acting_for(OTHER):
        put(f"s3://fl-demo-data-{OTHER}", "probe", b"x")
    store = site.cluster.core.read_namespaced_pod(
        "fedrisk-s3-0", site.cluster.namespace, _request_timeout=CALL
    )
    found = check_probe(table, _run_pod(site, "fedrisk-smoke-probe", probe(store.status.pod_ip)))
    if not found:
        return
    table.check(
        "no-other-secret",
        "no token and no other secret is in its pod",
        not found["token"] and not found["other key"],
        f"{found['token']} {found['other key']}",
    )
    table.check("ports", "the store's inner ports are closed", not found["ports"], found["ports"])
    status = _as_account(site, OWN, f"fedrisk-hospital-{OTHER}")
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
    """See what the release's service accounts may ask of the API server."""
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
    """Check that the node for training takes no pod that does not tolerate its taint."""
    name, command = "fedrisk-smoke-untolerating", ["true"]

    def refused() -> str:
        pod = site.cluster.core.read_namespaced_pod(
            name, site.cluster.namespace, _request_timeout=CALL
        )
        conditions = [c for c in pod.status.conditions or () if c.type == "PodScheduled"]
        return next((str(c.message) for c in conditions if c.status == "False"), "")

    reason = ""
    with contextlib.suppress(NotReached), _pod(site, name, "hospital-1", command, ()):
        reason = until(f"pod {name} is refused", refused, 600)
    table.check(
        "taint",
        "a pod that does not tolerate the taint is not scheduled",
        "untolerated taint" in reason,
        reason,
    )


def try_to_join(site: Site, table: Table) -> None:
    """Try to join with an unregistered key."""
    check_stranger(table, _run_pod(site, "fedrisk-smoke-stranger", STRANGER))


def _run_pod(site: Site, name: str, program: str) -> str:
    """Run a program in Python as a pod of a hospital, and return what it printed."""
    with _pod(site, name, OWN, ["python", "-c", program]):

        def ended() -> bool:
            pod = site.cluster.core.read_namespaced_pod(
                name, site.cluster.namespace, _request_timeout=CALL
            )
            return pod.status.phase in ("Succeeded", "Failed")

        with contextlib.suppress(Exception):
            until(f"pod {name} has ended", ended, 280)
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
        "image": f"fedrisk-hospital:{site.tag}",
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
    until(f"no pod {name} is left", lambda: not _there(site, name), 600)
    core.create_namespaced_pod(space, body, _request_timeout=CALL)
    try:
        yield
    finally:
        site.cluster.delete_pod(name, 0)


def _there(site: Site, name: str) -> bool:
    return any(pod.metadata.name == name for pod in site.cluster.pods())
