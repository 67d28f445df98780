"""The stages of ``make cluster-smoke``, gone through once for all tests here."""

from __future__ import annotations

import subprocess

import pytest
from kubernetes_cluster import need_cluster

from smoke.cluster.__main__ import IMAGES, STAGES, go_through, smoke_on, the_cluster
from smoke.compare import EarlierRun
from smoke.table import Table
from tasks.run.folder import RunFolder


def image(name: str) -> None:
    """Fail where an image that `make images` makes is not there."""
    found = f"fedrisk-{name}:dev"
    done = subprocess.run(
        ["docker", "image", "inspect", found], capture_output=True, timeout=60, check=False
    )
    if done.returncode:
        pytest.fail(f"there is no image {found}: run `make images` first")


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Table:
    """What the stages have checked on the cluster of this machine."""
    need_cluster()
    for name in IMAGES:
        image(name)
    by_process = request.getfixturevalue("default_run")
    assert by_process.code == 0, by_process.errors[-900:]
    found = Table()
    with pytest.MonkeyPatch.context() as patch:
        # The cluster of this machine, whichever one a developer works with.
        patch.delenv("KUBECONFIG", raising=False)
        with the_cluster("dev") as cluster, smoke_on(cluster, "dev", found) as smoke:
            smoke.beside = EarlierRun(
                RunFolder(by_process.home / "runs", by_process.result["run"]),
                ["federation.deadlines.ready=400"],
            )
            go_through(smoke, list(STAGES))
    found.end(tmp_path_factory.mktemp("cluster") / "table.json")
    return found
