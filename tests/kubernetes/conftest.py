"""The stages of ``make cluster-smoke`` on the cluster of this machine, in two parts."""

from __future__ import annotations

import pytest
from kubernetes_cluster import need_cluster
from smoke_checks import need_images, shown
from whole_runs import PATIENT, WholeRun

from smoke.cluster.__main__ import the_cluster
from smoke.cluster.stages import IMAGES, go_through, smoke_on
from smoke.compare import EarlierRun
from smoke.table import Table


def gone_through(wanted: list[str], beside: EarlierRun | None = None) -> Table:
    """Go through some stages, and print the table however they end.

    Args:
        wanted: The stages beside ``install``.
        beside: The run by processes to compare with.
    """
    found = Table()
    with pytest.MonkeyPatch.context() as patch:
        # The cluster of this machine, whichever one a developer works with.
        patch.delenv("KUBECONFIG", raising=False)
        try:
            with the_cluster("dev") as cluster, smoke_on(cluster, "dev", found) as smoke:
                smoke.beside = beside
                go_through(smoke, wanted)
        finally:
            found.end()
    return found


@pytest.fixture(scope="session")
def ready() -> None:
    """There are a cluster and the images."""
    need_cluster()
    need_images(IMAGES)


@pytest.fixture(scope="session")
def table(ready: None, default_run: WholeRun, pytestconfig: pytest.Config) -> Table:
    """What is checked every time: one release, from its install over a run in pods to its end."""
    beside = default_run.to_compare(*PATIENT)
    with shown(pytestconfig):
        return gone_through(["run", "isolation", "uninstall"], beside)


@pytest.fixture(scope="session")
def platform_table(ready: None, pytestconfig: pytest.Config) -> Table:
    """What is checked in the platform stage: faults, growth and the standing federation."""
    with shown(pytestconfig):
        return gone_through(["faults", "standing", "uninstall"])
