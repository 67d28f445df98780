"""The stages of ``make cluster-smoke``: what each does, and in which order they can be done."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from smoke.cluster.faults import (
    add_other_study,
    cancelled_run,
    disturbed_run,
    ended_with,
    impossible_run,
    killed_command,
    no_image,
)
from smoke.cluster.former_chart import NoFormerChart, former_chart
from smoke.cluster.isolation import (
    check_access,
    check_pods,
    check_rights,
    check_taint,
    try_to_join,
)
from smoke.cluster.lab import Lab, lab_of
from smoke.cluster.site import CHART, Site, left_behind, mark_node, unmark_node, without_taint
from smoke.cluster.standing import grow_and_train, version_of
from smoke.cluster.tools import CALL, Cluster
from smoke.compare import EarlierRun, ProcessRun, check_same
from smoke.http import page_of
from smoke.table import Table
from smoke.waits import until
from tasks.run.stored_run import open_run

IMAGES = ("hospital", "federation", "mlflow", "spark")
S3_IMAGE = "chrislusf/seaweedfs:4.48"
FIRST = ("hospital-1", "hospital-2", "hospital-3")
SAME = ["federation.rounds=6", "federation.deadlines.ready=400"]
"""The run that is compared with the launcher ``process``, where there is none yet."""
HOME = "home"
LIMIT = 2400.0
"""Seconds for one run on two busy cores; a quiet machine needs an eighth of it."""


@dataclass
class Smoke:
    """What the stages share.

    Attributes:
        site: Parties and release.
        table: Gets the checks.
        folder: For homes and keys.
        node: The training node.
        lab: Airflow, while it runs.
        beside: The run by processes to compare with.
    """

    site: Site
    table: Table
    folder: Path
    node: str = ""
    lab: Lab | None = None
    beside: ProcessRun | EarlierRun | None = None

    def the_lab(self) -> Lab:
        """Airflow, which must run."""
        if self.lab is None:
            raise RuntimeError("Airflow does not run")
        return self.lab


def install(smoke: Smoke) -> None:
    """Keys, kits, secrets, the release, and its own tests."""
    site, table = smoke.site, smoke.table
    site.init()
    site.add(*FIRST)
    # What an earlier command may have left: a taint keeps the store from its node.
    unmark_node(site.cluster)
    site.cluster.make_namespace()
    site.put_secrets()
    site.helm("install", site.values(), 600)
    said = site.cluster.helm("test", "fedrisk", "--timeout", "400s", limit=420)
    table.check("installed", "the release is installed", True, "SuperLink, MLflow and S3 are ready")
    passed = said.count("Succeeded")
    table.check("helm-test", "helm test", passed >= 3, f"{passed} tests")
    _check_metrics(site, table)
    smoke.node = mark_node(site.cluster)


def _check_metrics(site: Site, table: Table) -> None:
    """MLflow's pod, called by its address as Prometheus calls it, and the store have metrics."""
    core, space = site.cluster.core, site.cluster.namespace
    pod = core.read_namespaced_pod("fedrisk-mlflow-0", space, _request_timeout=CALL)
    url = f"http://{pod.status.pod_ip}:5000/metrics"
    code = f"import urllib.request as it; print(it.urlopen({url!r}, timeout=20).read().decode())"
    store = site.cluster.address("fedrisk-s3", 9327)
    words = {
        "mlflow_http_request_total": site.cluster.run_in(pod.metadata.name, "python", "-c", code),
        "SeaweedFS_": page_of(f"http://{store}/metrics").decode(),
    }
    missing = [word for word, text in words.items() if word not in text]
    table.check("metrics", "MLflow and the store have metrics", not missing, missing)


def same_run(smoke: Smoke) -> None:
    """The run in pods to a champion, with the figures of the same run by processes."""
    lab, table = smoke.the_lab(), smoke.table
    if smoke.beside is None:
        raise RuntimeError("there is no run to compare with")
    # Side by side on few cores each would take longer than both in turn.
    by_process = smoke.beside.figures(LIMIT)
    run = lab.start("same", *smoke.beside.overrides)
    state = run.wait(LIMIT)
    why = "; ".join(f"{e.step}: {e.message}" for e in run.endings() if e.code)
    table.check(
        "champion",
        "retrain_stroke in pods goes from raw tables to a champion",
        state == "success",
        why,
    )
    if state != "success":
        return
    promoted = run.manifest("promote").figures
    version = str(promoted.get("model_version"))
    known = str(version_of(smoke.site, "champion")["version"])
    table.check(
        "registered",
        "the champion is in the cluster's MLflow",
        bool(promoted.get("champion")) and known == version,
        f"alias champion is version {known}, the run's is {version}",
    )
    check_same(table, by_process, open_run(lab.settings, run.id))


def faults(smoke: Smoke) -> None:
    """Everything that may go wrong while runs go on, with the long run beside the short ones."""
    lab, site, table, folder = smoke.the_lab(), smoke.site, smoke.table, smoke.folder
    try:
        chart, commit = former_chart(folder / "former")
    except NoFormerChart as reason:
        table.skip("former-chart", "the release is upgraded from the former chart", str(reason))
        chart, commit = CHART, "this checkout"

    def former() -> None:
        with without_taint(site.cluster):
            site.helm("upgrade", site.values(), 600, chart)

    # Of the former chart first, so that a run is there when it is upgraded.
    is_former = _each_tried(table, {"the former chart": former})
    started: list[subprocess.Popen[Any]] = []
    runs: dict[str, Callable[[], object]] = {
        "the cancelled run": lambda: cancelled_run(lab, table),
        "the impossible run": lambda: impossible_run(lab, table),
    }
    commands: dict[str, Callable[[], object]] = {
        "the killed command": lambda: killed_command(site, table, folder / "killed", started),
        "the command without an image": lambda: no_image(site, table, folder / "no-image", started),
    }
    # Daemons: an interrupted command does not wait for them.
    beside = [
        threading.Thread(target=_each_tried, args=(table, parts), daemon=True)
        for parts in (runs, commands)
    ]

    def alone() -> None:
        for thread in beside:
            thread.join(LIMIT)

    with ended_with(started):
        for thread in beside:
            thread.start()
        if is_former:
            disturbed = partial(disturbed_run, lab, site, table, LIMIT, commit, alone)
            _each_tried(table, {"the disturbed run": disturbed})
        alone()


def _each_tried(table: Table, parts: Mapping[str, Callable[[], object]]) -> bool:
    """Do some parts, of which one that fails keeps no other back, and say whether none has."""
    held = True
    for what, part in parts.items():
        try:
            part()
        except Exception as error:  # noqa: BLE001  (a check that did not hold)
            table.check("goes-through", f"{what} goes through", False, error)
            held = False
    return held


def isolation(smoke: Smoke) -> None:
    """What a hospital cannot do."""
    check_pods(smoke.the_lab().watch.seen, smoke.node, smoke.table)
    check_access(smoke.site, smoke.table)
    check_rights(smoke.site, smoke.table)
    check_taint(smoke.site, smoke.table)
    try_to_join(smoke.site, smoke.table)


def standing(smoke: Smoke) -> None:
    """More and more hospitals with standing SuperNodes, and a run that these train."""
    # The home of the Airflow before it: the database is there already.
    grow_and_train(smoke.site, smoke.table, smoke.folder / HOME, LIMIT)


def uninstall(smoke: Smoke) -> None:
    """The release goes, and all that it made with it."""
    site, table = smoke.site, smoke.table
    site.cluster.helm("uninstall", "fedrisk", "--wait", "--timeout", "600s", limit=630)
    left: list[str] = []

    def nothing() -> bool:
        left[:] = left_behind(site.cluster)
        return not left

    with contextlib.suppress(Exception):
        until("nothing is left", nothing, 600)
    table.check("nothing-left", "uninstall leaves nothing", not left, ", ".join(left))


STAGES: dict[str, Callable[[Smoke], None]] = {
    "install": install,
    "run": same_run,
    "faults": faults,
    "isolation": isolation,
    "standing": standing,
    "uninstall": uninstall,
}


@contextlib.contextmanager
def smoke_on(cluster: Cluster, tag: str, table: Table) -> Iterator[Smoke]:
    """A site on a cluster; nothing of it is left when the block is left.

    Args:
        cluster: Where.
        tag: Of the images.
        table: Gets the checks.
    """
    # Before anything is changed: what ends this block would take it away.
    cluster.check_namespace()
    folder = Path(tempfile.mkdtemp(prefix="fedrisk-cluster-"))
    site = Site(cluster, folder, tag)
    smoke = Smoke(site, table, folder)
    try:
        yield smoke
    finally:
        if smoke.beside is not None:
            smoke.beside.end()
        with contextlib.suppress(Exception):
            unmark_node(cluster)
        cluster.drop_namespace()
        shutil.rmtree(folder, ignore_errors=True)


def go_through(smoke: Smoke, wanted: list[str]) -> None:
    """Do the stages in their order; Airflow runs from the second to the last but one.

    A stage that fails is a check that did not hold, and the next one is tried: faults, isolation
    and growth do not need the run before them. Without an installed release nothing can go on.
    """
    table = smoke.table
    if "run" in wanted and smoke.beside is None:
        # It begins while the release is installed.
        smoke.beside = ProcessRun(smoke.folder / "process", "same", SAME)
    with table.stage("install"):
        install(smoke)
    beside = [name for name in ("run", "faults", "isolation") if name in wanted]
    if beside:
        add_other_study(smoke.folder / HOME)
        with lab_of(smoke.site, smoke.folder / HOME) as smoke.lab:
            for name in beside:
                _tried(smoke, name)
        smoke.lab = None
    for name in ("standing", "uninstall"):
        if name in wanted:
            _tried(smoke, name)


def _tried(smoke: Smoke, name: str) -> None:
    with contextlib.suppress(Exception), smoke.table.stage(name):
        STAGES[name](smoke)
