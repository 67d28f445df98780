"""The smoke command leaves alone what it has not made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_cluster import cluster, kubectl, namespace  # noqa: F401

from smoke.cluster.site import ADDED, POOL_LABEL, TAINT, mark_node, unmark_node, without_taint
from smoke.cluster.tools import Cluster

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.shared]


@pytest.fixture
def here(cluster: Path) -> Iterator[Cluster]:  # noqa: F811
    found = Cluster(str(cluster), namespace="somebodys")
    try:
        yield found
    finally:
        unmark_node(found)


@pytest.mark.parametrize("training", [True, False])
def test_a_node_gets_back_what_it_had(here: Cluster, training: bool) -> None:
    def looks() -> tuple[dict[str, str], list[str]]:
        found = here.core.read_node(node)
        labels = {k: v for k, v in found.metadata.labels.items() if k in POOL_LABEL}
        return labels, [each.key for each in found.spec.taints or []]

    node = here.core.list_node().items[0].metadata.name
    label = next(iter(POOL_LABEL.items()))
    if training:
        kubectl("label", "node", node, "=".join(label))
        kubectl("taint", "node", node, f"{TAINT}=true:NoSchedule")
    try:
        before = looks()
        assert mark_node(here) == node
        assert looks() == (dict([label]), [TAINT])
        with without_taint(here):
            assert looks() == (dict([label]), [TAINT] * training)
        assert looks() == (dict([label]), [TAINT])
        unmark_node(here)
        assert looks() == before
        assert ADDED not in (here.core.read_node(node).metadata.annotations or {})
    finally:
        if training:
            kubectl("label", "node", node, f"{label[0]}-")
            kubectl("taint", "node", node, f"{TAINT}-")
