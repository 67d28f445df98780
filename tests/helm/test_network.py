"""Who may talk to whom: the policies as rendered, asked as a cluster would ask them.

The test cluster does not enforce policies, so a small evaluator (podSelector, namespaceSelector,
ipBlock, ports; allowed is the union over the policies that select a pod) answers here.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest
from helm_chart import NAMESPACE, Objects, Render

NAME = {"app.kubernetes.io/name": "fedrisk"}


@dataclass(frozen=True)
class End:
    """A pod (by its labels and namespace), or an address outside the cluster."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    address: str = ""


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


def is_peer(peer: dict[str, Any], end: End) -> bool:
    if "ipBlock" in peer:
        if not end.address:
            return False
        address = ipaddress.ip_address(end.address)
        inside = [address in ipaddress.ip_network(c) for c in peer["ipBlock"].get("except", [])]
        return address in ipaddress.ip_network(peer["ipBlock"]["cidr"]) and not any(inside)
    if end.address:
        return False
    if "namespaceSelector" in peer:
        names = {"kubernetes.io/metadata.name": end.namespace}
        if not selects(peer["namespaceSelector"], names):
            return False
    elif end.namespace != NAMESPACE:
        return False
    return selects(peer.get("podSelector"), end.labels)


def open_to(policies: list[dict[str, Any]], way: str, end: End, other: End, port: int) -> bool:
    """Whether the policies let ``end`` talk one way with ``other``."""
    if end.address or end.namespace != NAMESPACE:
        return True
    isolating = [
        p for p in policies if way in p["policyTypes"] and selects(p["podSelector"], end.labels)
    ]
    if not isolating:
        return True
    side, peers = ("ingress", "from") if way == "Ingress" else ("egress", "to")
    for policy in isolating:
        for rule in policy.get(side) or []:
            if all(p["port"] != port for p in rule.get("ports", [{"port": port}])):
                continue
            if peers not in rule or any(is_peer(peer, other) for peer in rule[peers]):
                return True
    return False


def reaches(objects: Objects, source: End, target: End, port: int) -> bool:
    policies = [item["spec"] for (kind, _), item in objects.items() if kind == "NetworkPolicy"]
    return open_to(policies, "Egress", source, target, port) and open_to(
        policies, "Ingress", target, source, port
    )


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
    ("a hospital does not reach the internet", H1, End(address="198.51.100.1"), 443, False),
    (
        "a hospital does not reach the instance's metadata",
        H1,
        End(address="169.254.169.254"),
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
    ("Airflow itself is left alone", AIRFLOW, End(address="198.51.100.1"), 443, True),
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


def test_hospitals_elsewhere_come_in_from_their_addresses_alone(render: Render) -> None:
    objects = render("plain")
    assert reaches(objects, End(address="198.51.100.9"), SUPERLINK, 9092)
    assert not reaches(objects, End(address="203.0.113.9"), SUPERLINK, 9092)
    assert not reaches(objects, End(address="198.51.100.9"), MLFLOW, 5000)
    store, other = End(address="192.0.2.3"), End(address="192.0.2.200")
    for pod in (H1, step("pool"), SERVER):
        assert reaches(objects, pod, store, 443)
        assert not reaches(objects, pod, other, 443)
    assert not reaches(objects, MLFLOW, store, 443)


def test_in_its_own_cluster_a_hospital_reaches_superlink_store_and_dns(render: Render) -> None:
    objects = render("hospital")
    node = step("hospital-1", "hospital")
    assert reaches(objects, node, End(address="198.51.100.10"), 9092)
    assert not reaches(objects, node, End(address="198.51.100.11"), 9092)
    assert reaches(objects, node, End(address="203.0.113.5"), 443)
    assert not reaches(objects, node, End(address="192.0.2.3"), 443)
    assert reaches(objects, node, DNS, 53)
    assert reaches(objects, TEST, End(address="198.51.100.10"), 9092)


def test_a_hospitals_own_source_and_store_are_its_alone(render: Render) -> None:
    def rule(cidr: str, port: int) -> list[dict[str, Any]]:
        return [{"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": port}]}]

    own = {"store": rule("10.1.0.0/16", 443), "source": rule("10.2.0.5/32", 5432)}
    values = {"hospitals": {"hospital-1": own, "hospital-2": {}}}
    objects = render(values=values)
    for address, port in (("10.1.0.7", 443), ("10.2.0.5", 5432)):
        assert reaches(objects, H1, End(address=address), port)
    assert not reaches(objects, H1, End(address="192.0.2.3"), 443)
    assert not reaches(objects, H2, End(address="10.2.0.5"), 5432)


def test_policies_may_be_left_out(render: Render) -> None:
    objects = render("kind", options=("--set", "networkPolicy.enabled=false"))
    assert not [k for k in objects if k[0] == "NetworkPolicy"]
