"""Who may talk to whom: the policies as rendered, asked as a cluster would ask them.

The test cluster does not enforce policies, so a small evaluator (podSelector, namespaceSelector,
ipBlock, ports and their protocols; allowed is the union over the policies that select a pod)
answers here. A range of addresses selects pods too on networks that give them addresses of the
machines' own (EKS), and does not on others: what is asked must have the same answer on both.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helm_chart import API, CHART, NAMESPACE, Objects, Render
from kubernetes_cluster import helm

NAME = {"app.kubernetes.io/name": "fedrisk"}
VALUES = ["", "kind", "plain", "eks", "hospital", "everything"]


@dataclass(frozen=True)
class End:
    """A pod by its labels, namespace and address; without a namespace, something outside."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    address: str = "10.0.2.77"


def outside(address: str) -> End:
    return End({}, "", address)


def step(owner: str, role: str = "step") -> End:
    return End({**NAME, "fedrisk.io/owner": owner, "fedrisk.io/role": role})


def part(component: str, **more: str) -> End:
    return End({**NAME, "app.kubernetes.io/component": component, **more})


H1, H2 = step("hospital-1", "hospital"), step("hospital-2", "hospital")
SERVER = step("consortium", "server")
SUPERLINK = part("superlink", **{"fedrisk.io/owner": "consortium"})
MLFLOW, S3, TEST = part("mlflow"), part("s3"), part("test")
AIRFLOW = End({"tier": "airflow"})
DNS = End({"k8s-app": "kube-dns"}, "kube-system")
PROMETHEUS = End({"app.kubernetes.io/name": "prometheus"}, "monitoring")
STRANGER = End({"app": "stranger"}, "elsewhere")


def selects(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    if selector is None:
        return True
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for need in selector.get("matchExpressions") or []:
        value = labels.get(need["key"])
        holds = {
            "Exists": value is not None,
            "DoesNotExist": value is None,
            "In": value in need.get("values", []),
            "NotIn": value not in need.get("values", []),
        }[need["operator"]]
        if not holds:
            return False
    return True


def is_peer(peer: dict[str, Any], end: End, flat: bool) -> bool:
    """Whether a peer of a rule is this end.

    Args:
        peer: The peer.
        end: The end.
        flat: Whether a range of addresses selects pods too.
    """
    if "ipBlock" in peer:
        if end.namespace and not flat:
            return False
        address = ipaddress.ip_address(end.address)
        inside = [address in ipaddress.ip_network(c) for c in peer["ipBlock"].get("except", [])]
        return address in ipaddress.ip_network(peer["ipBlock"]["cidr"]) and not any(inside)
    if not end.namespace:
        return False
    if "namespaceSelector" in peer:
        names = {"kubernetes.io/metadata.name": end.namespace}
        if not selects(peer["namespaceSelector"], names):
            return False
    elif end.namespace != NAMESPACE:
        return False
    return selects(peer.get("podSelector"), end.labels)


def is_port(found: dict[str, Any], port: int, protocol: str) -> bool:
    if found.get("protocol", "TCP") != protocol:
        return False
    first = found.get("port", port)
    return first <= port <= found.get("endPort", first if "port" in found else port)  # type: ignore[no-any-return]


def allows(
    rule: dict[str, Any], side: str, other: End, port: int, protocol: str, flat: bool
) -> bool:
    """Whether a rule allows it: no peers are all peers, and no ports all ports."""
    ports, peers = rule.get("ports"), rule.get("from" if side == "ingress" else "to")
    return (not ports or any(is_port(p, port, protocol) for p in ports)) and (
        not peers or any(is_peer(peer, other, flat) for peer in peers)
    )


def open_to(
    policies: list[dict[str, Any]],
    side: str,
    end: End,
    other: End,
    port: int,
    protocol: str,
    flat: bool,
) -> bool:
    """Whether the policies let ``end`` talk one way (``ingress``, ``egress``) with ``other``."""
    if end.namespace != NAMESPACE:
        return True
    isolating = [
        policy
        for policy in policies
        if side.capitalize() in policy["policyTypes"] and selects(policy["podSelector"], end.labels)
    ]
    return not isolating or any(
        allows(rule, side, other, port, protocol, flat)
        for policy in isolating
        for rule in policy.get(side) or []
    )


def reaches(objects: Objects, source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    policies = [item["spec"] for (kind, _), item in objects.items() if kind == "NetworkPolicy"]
    found = {
        open_to(policies, "egress", source, target, port, protocol, flat)
        and open_to(policies, "ingress", target, source, port, protocol, flat)
        for flat in (False, True)
    }
    assert len(found) == 1, "it depends on the network whether a range selects pods"
    return found.pop()


def test_the_evaluator_reads_policies_as_kubernetes_does() -> None:
    def ingress(*rules: dict[str, Any], flat: bool = False, **more: Any) -> bool:
        policy = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": list(rules)}
        given = {"other": STRANGER, "port": 53, "protocol": "UDP", **more}
        return open_to([policy], "ingress", End(), flat=flat, **given)

    # "If this field is empty or missing, this rule matches all sources" (and ports): the API's
    # reference of NetworkPolicyIngressRule. No rule at all is nobody.
    assert ingress({})
    assert ingress({"from": [], "ports": []})
    assert not ingress()
    # The protocol is TCP where none is named.
    assert not ingress({"ports": [{"port": 53}]})
    assert ingress({"ports": [{"port": 53, "protocol": "UDP"}]})
    assert ingress({"ports": [{"port": 50, "endPort": 60, "protocol": "UDP"}]})
    assert ingress({"ports": [{"protocol": "UDP"}]})
    assert not ingress({"ports": [{"port": 50, "endPort": 52, "protocol": "UDP"}]})
    # A range of addresses selects what is outside, and pods on a flat network.
    block = {"from": [{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.0.9.0/24"]}}]}
    assert ingress(block, other=outside("10.0.2.77"))
    assert not ingress(block, other=outside("10.0.9.1"))
    assert not ingress(block)
    assert ingress(block, flat=True)


IN_CLUSTER: list[tuple[str, End, End, int, bool]] = [
    ("a hospital reaches the SuperLink", H1, SUPERLINK, 9092, True),
    ("a hospital reaches a run's server", H1, SERVER, 9092, True),
    ("a hospital reaches the store", H1, S3, 8333, True),
    ("a hospital asks DNS", H1, DNS, 53, True),
    ("a hospital's data step reaches the store", step("hospital-1"), S3, 8333, True),
    ("a hospital does not reach another", H1, H2, 9092, False),
    ("a hospital does not reach MLflow", H1, MLFLOW, 5000, False),
    ("a hospital does not reach the store's own ports", H1, S3, 8888, False),
    ("a hospital does not reach Airflow", H1, AIRFLOW, 8080, False),
    ("a hospital does not reach the internet", H1, outside("203.0.113.1"), 443, False),
    (
        "a hospital does not reach the instance's metadata",
        H1,
        outside("169.254.169.254"),
        80,
        False,
    ),
    (
        "a hospital of no entry reaches nothing",
        step("hospital-9", "hospital"),
        SUPERLINK,
        9092,
        False,
    ),
    ("the server reaches MLflow", SERVER, MLFLOW, 5000, True),
    ("the server reaches the store", SERVER, S3, 8333, True),
    ("the server does not reach a hospital", SERVER, H1, 9092, False),
    ("the SuperLink reaches MLflow", SUPERLINK, MLFLOW, 5000, True),
    ("the SuperLink reaches the store", SUPERLINK, S3, 8333, True),
    ("promote reaches MLflow", step("consortium"), MLFLOW, 5000, True),
    ("promote does not reach the SuperLink", step("consortium"), SUPERLINK, 9092, False),
    ("the pool reaches the store", step("pool"), S3, 8333, True),
    ("the pool does not reach MLflow", step("pool"), MLFLOW, 5000, False),
    ("the pool does not reach a server", step("pool"), SERVER, 9092, False),
    ("Airflow reaches MLflow", AIRFLOW, MLFLOW, 5000, True),
    ("Airflow reaches the store", AIRFLOW, S3, 8333, True),
    ("Airflow does not reach the SuperLink", AIRFLOW, SUPERLINK, 9092, False),
    ("a stranger does not reach MLflow", STRANGER, MLFLOW, 5000, False),
    ("a stranger does not reach the store", STRANGER, S3, 8333, False),
    ("a stranger does not reach the SuperLink", STRANGER, SUPERLINK, 9092, False),
    ("MLflow reaches nothing", MLFLOW, S3, 8333, False),
    ("the chart's tests reach the SuperLink", TEST, SUPERLINK, 9092, True),
    ("the chart's tests reach MLflow", TEST, MLFLOW, 5000, True),
    ("the chart's tests reach the store", TEST, S3, 8333, True),
    ("the chart's tests do not reach the store's own ports", TEST, S3, 8888, False),
    ("Airflow itself is left alone", AIRFLOW, outside("203.0.113.1"), 443, True),
]


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [case[1:] for case in IN_CLUSTER],
    ids=[case[0] for case in IN_CLUSTER],
)
def test_within_a_cluster(
    render: Render, source: End, target: End, port: int, expected: bool
) -> None:
    assert reaches(render("kind"), source, target, port) is expected


def test_names_are_asked_for_by_both_protocols(render: Render) -> None:
    for name in VALUES:
        objects = render(name)
        for pod in (H1, TEST):
            for protocol in ("UDP", "TCP"):
                assert reaches(objects, pod, DNS, 53, protocol), (name, protocol)
                assert not reaches(objects, pod, outside("203.0.113.1"), 53, protocol)
            assert reaches(objects, pod, outside("169.254.20.10"), 53, "UDP"), "the node's cache"


ELSEWHERE = {
    "the internet": (outside("203.0.113.77"), (443, 9092, 22)),
    "the API server": (outside("10.0.1.50"), (443, 6443)),
    "the API server's service": (outside("172.20.0.1"), (443,)),
    "the instance's metadata": (outside("169.254.169.254"), (80,)),
    "another pod of the network": (STRANGER, (443, 8333, 9092)),
    "the load balancer's subnet": (outside("10.0.101.9"), (443, 9092)),
    "Airflow": (AIRFLOW, (8080,)),
}


@pytest.mark.parametrize("what", ELSEWHERE)
@pytest.mark.parametrize("name", VALUES)
def test_no_pod_of_a_step_reaches_what_is_not_named(render: Render, name: str, what: str) -> None:
    objects, (target, ports) = render(name), ELSEWHERE[what]
    everybody = [H1, step("hospital-1"), step("pool"), SERVER, step("consortium"), SUPERLINK]
    for pod in everybody if name != "hospital" else [H1]:
        for port in ports:
            assert not reaches(objects, pod, target, port), (pod, port)


@pytest.mark.parametrize("name", ["plain", "eks"])
def test_hospitals_elsewhere_come_in_from_their_addresses_alone(render: Render, name: str) -> None:
    objects = render(name)
    assert reaches(objects, outside("198.51.100.9"), SUPERLINK, 9092)
    assert not reaches(objects, outside("203.0.113.9"), SUPERLINK, 9092)
    assert not reaches(objects, outside("198.51.100.9"), MLFLOW, 5000)
    assert not reaches(objects, STRANGER, SUPERLINK, 9092)
    store, other = outside("192.0.2.3"), outside("192.0.3.200")
    for pod in (H1, step("pool"), SERVER):
        assert reaches(objects, pod, store, 443)
        assert not reaches(objects, pod, other, 443)
    assert not reaches(objects, MLFLOW, store, 443)


def test_on_eks_roles_and_health_checks_work(render: Render) -> None:
    objects = render("eks")
    for pod in (H1, step("pool"), SERVER, SUPERLINK):
        assert reaches(objects, pod, outside("10.0.1.10"), 443), "STS gives roles their keys"
        assert not reaches(objects, pod, outside("10.0.1.11"), 443)
    assert reaches(objects, outside("10.0.102.8"), SUPERLINK, 9092), "the load balancer's check"
    assert not reaches(objects, outside("10.0.3.8"), SUPERLINK, 9092)


def test_the_superlink_sees_who_connects_where_addresses_are_asked_for(render: Render) -> None:
    spec = render("plain")["Service", "fedrisk-superlink"]["spec"]
    assert (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    assert "externalTrafficPolicy" not in render("kind")["Service", "fedrisk-superlink"]["spec"]
    notes = render("eks")["Service", "fedrisk-superlink"]["metadata"]["annotations"]
    assert "preserve_client_ip.enabled=true" in str(notes)


def test_in_its_own_cluster_a_hospital_reaches_superlink_store_and_dns(render: Render) -> None:
    objects = render("hospital")
    node = step("hospital-1", "hospital")
    assert reaches(objects, node, outside("198.51.100.10"), 9092)
    assert not reaches(objects, node, outside("198.51.100.11"), 9092)
    assert reaches(objects, node, outside("203.0.113.5"), 443)
    assert not reaches(objects, node, outside("192.0.2.3"), 443)
    assert reaches(objects, TEST, outside("198.51.100.10"), 9092)


def rule(cidr: str, port: int) -> list[dict[str, Any]]:
    return [{"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": port}]}]


@pytest.mark.parametrize("name", ["", "kind"])
def test_a_hospitals_own_source_and_store_are_its_alone(render: Render, name: str) -> None:
    own = {"store": rule("192.0.2.64/28", 443), "source": rule("192.0.2.80/32", 5432)}
    values = {"hospitals": {"hospital-1": own, "hospital-2": {}}}
    objects = render(name, values=values)
    lake, table = outside("192.0.2.67"), outside("192.0.2.80")
    assert reaches(objects, H1, lake, 443)
    assert reaches(objects, H1, table, 5432)
    assert not reaches(objects, H2, lake, 443)
    assert not reaches(objects, H2, table, 5432)
    # Its steps hand over through the runs' store, and `deal` and `central` work on every lake.
    runs, port = (S3, 8333) if name == "kind" else (outside("192.0.2.3"), 443)
    for pod in (H1, H2, step("hospital-1"), step("pool"), SERVER):
        assert reaches(objects, pod, runs, port)
    assert reaches(objects, step("pool"), lake, 443)
    assert not reaches(objects, step("pool"), table, 5432)
    assert not reaches(objects, SERVER, lake, 443)
    # Where no step runs, a SuperNode needs its hospital's lake alone.
    objects = render(name, values=values | {"airflow": {"enabled": False}})
    assert reaches(objects, H1, lake, 443)
    assert not reaches(objects, H1, runs, port)
    assert reaches(objects, H2, runs, port)


@pytest.mark.parametrize("name", ["", "kind"])
def test_the_one_table_that_is_dealt_is_the_pools_alone(render: Render, name: str) -> None:
    hospitals: dict[str, Any] = {"hospital-1": {}, "hospital-2": {}}
    table = outside("192.0.2.96")
    assert not reaches(render(name, values={"hospitals": hospitals}), step("pool"), table, 443)
    pool = {"source": rule("192.0.2.96/32", 443)}
    objects = render(name, values={"hospitals": hospitals, "pool": pool})
    assert reaches(objects, step("pool"), table, 443)
    assert not reaches(objects, step("pool"), table, 80)
    assert not reaches(objects, step("pool"), outside("192.0.2.97"), 443)
    for pod in (H1, H2, step("hospital-1"), SERVER, step("consortium"), SUPERLINK, MLFLOW):
        assert not reaches(objects, pod, table, 443)
    store, port = (S3, 8333) if name == "kind" else (outside("192.0.2.3"), 443)
    assert reaches(objects, step("pool"), store, port)


def test_mlflow_elsewhere_is_reached_by_the_consortium_alone(render: Render) -> None:
    mlflow = {"enabled": False, "uri": "https://mlflow.example.org"}
    policy = {"mlflow": {"external": rule("192.0.2.16/32", 443)}}
    objects = render(
        values={"hospitals": {"hospital-1": {}}, "mlflow": mlflow, "networkPolicy": policy}
    )
    there = outside("192.0.2.16")
    for pod in (SERVER, SUPERLINK, step("consortium")):
        assert reaches(objects, pod, there, 443)
    for pod in (H1, step("pool")):
        assert not reaches(objects, pod, there, 443)


def test_mlflow_reaches_its_database_and_nothing_else(render: Render) -> None:
    objects = render("everything")
    assert reaches(objects, MLFLOW, outside("192.0.2.32"), 5432)
    assert not reaches(objects, MLFLOW, outside("192.0.2.3"), 443)
    assert not reaches(objects, MLFLOW, outside("192.0.2.32"), 443)


MISSING = {
    "networkPolicy.store": {"hospitals": {"h": {}}},
    "networkPolicy.mlflow.external": {
        "mlflow": {"enabled": False, "uri": "https://mlflow.example.org"},
        "networkPolicy": {"store": rule("192.0.2.0/28", 443)},
    },
    "networkPolicy.mlflow.egress": {
        "mlflow": {"database": {"existingSecret": "database"}},
        "networkPolicy": {"store": rule("192.0.2.0/28", 443)},
    },
    "networkPolicy.superlink.cidrs": {
        "superlink": {"enabled": False, "address": "superlink.example.org:9092"},
        "mlflow": {"enabled": False},
        "airflow": {"enabled": False},
        "hospitals": {"h": {"store": rule("192.0.2.0/28", 443)}},
    },
    "networkPolicy.denyNamespace": {
        "networkPolicy": {"store": rule("192.0.2.0/28", 443), "denyNamespace": True}
    },
}


@pytest.mark.parametrize("missing", MISSING)
def test_an_address_that_a_policy_needs_is_asked_for(
    chart: Path, tmp_path: Path, missing: str
) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(json.dumps(MISSING[missing]))
    command = ("template", "x", str(CHART), *API, "-f", str(path))
    with pytest.raises(RuntimeError, match=f"{re.escape(missing)}: "):
        helm(*command)
    assert "NetworkPolicy" not in helm(*command, "--set", "networkPolicy.enabled=false")


def test_whoever_needs_no_store_is_asked_for_none(chart: Path) -> None:
    options = ("--set", "superlink.enabled=false,airflow.enabled=false")
    assert "fedrisk-mlflow" in helm("template", "x", str(CHART), *API, *options)


def test_a_superlinks_address_that_is_no_name_is_allowed_as_it_is(render: Render) -> None:
    values = {
        "superlink": {"enabled": False, "address": "198.51.100.7:443"},
        "hospitals": {"hospital-1": {"supernode": {"enabled": True}}},
        "tls": {"mode": "existing"},
    }
    objects = render(values=values)
    assert reaches(objects, H1, outside("198.51.100.7"), 443)
    assert not reaches(objects, H1, outside("198.51.100.8"), 443)


def test_nobody_scrapes_unless_it_is_said_who(render: Render) -> None:
    objects = render("kind")
    for target, port in ((S3, 9327), (MLFLOW, 5000)):
        assert reaches(objects, PROMETHEUS, target, port)
        assert not reaches(objects, STRANGER, target, port)
        assert not reaches(objects, End({"app": "grafana"}, "monitoring"), target, port)
    assert not reaches(objects, PROMETHEUS, S3, 8333)
    objects = render("kind", values={"monitoring": {"from": []}})
    for pod in (PROMETHEUS, STRANGER, H1):
        assert not reaches(objects, pod, S3, 9327)
    assert not reaches(objects, PROMETHEUS, MLFLOW, 5000)


def test_strangers_in_the_namespace_are_left_alone_unless_the_values_say_otherwise(
    render: Render,
) -> None:
    neighbour, internet = End({"app": "neighbour"}), outside("203.0.113.77")
    assert reaches(render("kind"), neighbour, internet, 443)
    airflow = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "airflow"}}}
    values = {"airflow": airflow, "networkPolicy": {"denyNamespace": True}}
    objects = render("kind", values=values)
    assert not reaches(objects, neighbour, internet, 443)
    assert not reaches(objects, STRANGER, neighbour, 80)
    assert reaches(objects, neighbour, DNS, 53, "UDP")
    assert reaches(objects, End({"tier": "airflow"}, "airflow"), MLFLOW, 5000)
    assert reaches(objects, H1, S3, 8333)


def test_policies_may_be_left_out(render: Render) -> None:
    objects = render("kind", options=("--set", "networkPolicy.enabled=false"))
    assert not [k for k in objects if k[0] == "NetworkPolicy"]
