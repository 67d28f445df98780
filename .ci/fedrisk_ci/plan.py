"""The stages of a run, in their lanes, and what is ended after it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedrisk_ci.lanes import Lane, Stage

LIMIT = 84 * 60.0
"""Seconds for the whole: CI ends a run after 90 minutes, and what was started is to end first."""
COMPUTING = ("tests/data", "tests/lake/engine", "tests/model", "tests/registry")
"""Slow tests that only compute and have no deadline of less than minutes: they run at the lowest
weight, in what the others leave of the cores."""
PATIENCE = 1800
"""Seconds that a test may take beside other lanes, on a machine that is slow."""
SCIENCE = ("tests/end_to_end/test_science.py",)
"""Slow tests of what the models reach, which take as long as all of those together."""
FAST = ("--numprocesses=2", "--dist=loadfile", "--exitfirst")
"""Two processes, a file's tests in one of them, and the end at the first failure."""
DROP_OLD = (
    "for name in airflow spark federation hospital mlflow worker; do "
    "docker image prune --all --force --filter until=24h "
    "--filter label=org.opencontainers.image.title=fedrisk-$name; done | tail -1; "
    "docker builder prune --force --filter until=48h | tail -1"
)
"""Each run leaves images of its revision, gigabytes where dependencies changed. What is still of
use is made again from the builder's cache."""
PLATFORM = {
    "platform-cluster": ("tests/kubernetes",),
    "platform-compose": ("tests/compose", "tests/federation"),
    "platform-pods": ("tests/dags",),
}
"""The stages of the long checks, and whose tests they have: the first two one after the other, the
last, which mostly waits, beside them."""


@dataclass(frozen=True)
class Service:
    """Something that a stage starts for the whole run.

    Attributes:
        started_by: The stage.
        runs: A command that succeeds where it runs already; such a one is left running.
        end: The command that ends it.
    """

    started_by: str
    runs: tuple[str, ...]
    end: tuple[str, ...]


def services(shared: Path) -> list[Service]:
    """What is started outside the process tree, in the order in which it must be ended."""
    docker, cluster = shared / "docker", shared / "cluster"
    ready = '. "$0/cluster.env"; "$K8S_BIN/kubebox" kubectl --kubeconfig "$K8S_KUBECONFIG" version'
    return [
        Service(
            "cluster-up", ("bash", "-c", ready, str(cluster)), (str(cluster / "cluster-down"),)
        ),
        Service("engine", ("docker", "info"), (str(docker / "engine-down"),)),
    ]


def answers(command: tuple[str, ...]) -> bool:
    """Whether a short command succeeds."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _tests(name: str, target: str, *arguments: str, **options: Any) -> Stage:
    """Tests that a target of the Makefile selects, with the slowest of them shown."""
    # The images are those that a stage has built; without a tag the tests would build them again.
    command = ("make", "IMAGES_TAG=dev", target)
    shown = (*arguments, "--durations=20")
    return Stage(name, command, pytest=True, arguments=shown, **options)


def _prepared(shared: Path, docker: bool) -> list[Lane]:
    """Engine, images and cluster, made while the first tests run."""
    engine, cluster = shared / "docker", shared / "cluster"
    image_stages, cluster_stages = [], []
    if engine.is_dir():
        started = f'"$0/engine-up" && "$0/base-images" && {DROP_OLD}'
        command = ("bash", "-c", started, str(engine))
        image_stages.append(Stage("engine", command, daemons=True))
    if engine.is_dir() or docker:
        image_stages.append(Stage("images", ("make", "images"), needs=("engine",)))
    if cluster.is_dir():
        # Not beside the engine: both install Debian's packages.
        programs = Stage("cluster-programs", (str(cluster / "setup"),), needs=("engine",))
        cluster_stages.append(programs)
        start = ("env", "PYTHONPATH=.:tests", ".venv/bin/python", "-m", "kubernetes_cluster")
        needed = ("environment", "images", "cluster-programs")
        cluster_stages.append(Stage("cluster-up", start, needs=needed, daemons=True))
    return [Lane(tuple(image_stages), 45 * 60), Lane(tuple(cluster_stages), 45 * 60)]


def lanes(shared: Path, docker: bool, platform_passed: Callable[[str], str]) -> list[Lane]:
    """All that CI runs on this machine.

    Args:
        shared: Where a Docker engine, a cluster and development data may stand.
        docker: Whether an engine answers that this run need not start.
        platform_passed: Why a platform stage need not run, or nothing.
    """
    first = (
        Stage("environment", ("make", "environment"), ends_all=True),
        # Some of them read files with Docker's client, kubectl or Helm.
        _tests("fast", "test-fast", *FAST, needs=("engine", "cluster-programs"), ends_all=True),
    )
    set_up = ("make", "setup", "SETUP_ARGS=--spark")
    beside_fast = (
        # Spark's classes and the databases, which the fast tests do without.
        Stage("set-up", set_up, needs=("environment",), ends_all=True),
        Stage("lint", ("make", "lint"), needs=("environment",), ends_all=True),
    )
    checked = ("set-up", "lint", "fast")
    patient = f"--timeout={PATIENCE}"
    tried_twice = {"needs": (*checked, "images", "cluster-up"), "retry": True}
    ignored = ("--ignore=tests/images", "--ignore=tests/compose")
    stack = (
        _tests("image-contents", "test-stack", "tests/images", patient, **tried_twice),
        _tests("cluster", "test-stack", *ignored, patient, **tried_twice, apart=("science",)),
        _tests("compose", "test-stack", "tests/compose", patient, **tried_twice),
    )
    left_out = [f"--ignore={path}" for path in (*COMPUTING, *SCIENCE)]
    runs = _tests("runs", "test-slow", *left_out, patient, needs=checked)
    science = _tests("science", "test-slow", *SCIENCE, patient, needs=checked)
    # One test may have to wait until the other lanes are through.
    computing = _tests(
        "computing", "test-slow", *COMPUTING, "--timeout=4500", needs=checked, background=True
    )
    lanes = [
        Lane(first, 25 * 60),
        Lane(beside_fast, 25 * 60),
        *_prepared(shared, docker),
        Lane(stack, 75 * 60),
        Lane((runs, science), 75 * 60),
        Lane((computing,), 75 * 60),
    ]
    # After everything, background work too: all of these start twenty processes and more.
    others = tuple(stage.name for lane in lanes for stage in lane.stages)
    *heavy, pods = (
        _tests(
            name,
            "test-platform",
            *folders,
            needs=others,
            retry=True,
            skip=partial(platform_passed, name),
        )
        for name, folders in PLATFORM.items()
    )
    return [*lanes, Lane(tuple(heavy), 80 * 60), Lane((pods,), 80 * 60)]
