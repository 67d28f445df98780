"""``make cluster-smoke``: images, chart, runs in pods, faults, and nothing left, on a real cluster.

The cluster is the one that KUBECONFIG names, where images ``fedrisk-*:TAG`` are known already and
whose service addresses this machine reaches; without KUBECONFIG the one that the tests use. The
namespace ``fedrisk-smoke`` is made anew and deleted at the end, whatever happens; the label and the
taint that a node was given go too. A namespace of that name that no such command has made, or a
node that is a training node already, is left as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from smoke.cluster.faults import (
    cancelled_run,
    disturbed_run,
    impossible_run,
    killed_command,
    no_image,
)
from smoke.cluster.former_chart import NoFormerChart, former_chart
from smoke.cluster.isolation import check_access, check_pods, check_stranger, check_taint
from smoke.cluster.lab import Lab, lab_of
from smoke.cluster.site import (
    CHART,
    Site,
    left_behind,
    mark_node,
    unmark_node,
)
from smoke.cluster.standing import grow_and_train, version_of
from smoke.cluster.tools import Cluster
from smoke.command import ROOT
from smoke.compare import EarlierRun, ProcessRun, check_same
from smoke.images import BUILT, ready_images
from smoke.table import Table
from smoke.waits import until
from tasks.run.stored_run import open_run

IMAGES = ("spark", "federation", "mlflow")
S3_IMAGE = "chrislusf/seaweedfs:4.48"
FIRST = ("hospital-1", "hospital-2", "hospital-3")
SAME = ["federation.rounds=6", "federation.deadlines.ready=400"]
"""The run that is compared with the launcher ``process``, where there is none yet."""
HOME = "home"
LIMIT = 1500.0
"""Seconds for one run on two busy cores; a quiet machine needs a fifth of it."""


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
    """Keys, kits, secrets, the release, and what its own tests say."""
    site, table = smoke.site, smoke.table
    site.init()
    site.add(*FIRST)
    # What an earlier command may have left: a taint keeps the store from its node.
    unmark_node(site.cluster)
    site.cluster.make_namespace()
    site.put_secrets()
    site.helm("install", site.values(), 600)
    said = site.cluster.helm("test", "fedrisk", "--timeout", "400s", limit=420)
    table.check("the release is installed", True, "SuperLink, MLflow and S3 are ready")
    table.check("helm test", said.count("Succeeded") >= 3, f"{said.count('Succeeded')} tests")
    smoke.node = mark_node(site.cluster)


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
        "retrain_stroke in pods goes from raw tables to a champion", state == "success", why
    )
    if state != "success":
        return
    promoted = run.manifest("promote").figures
    version = str(promoted.get("model_version"))
    known = str(version_of(smoke.site, "champion")["version"])
    table.check(
        "the champion is in the cluster's MLflow",
        bool(promoted.get("champion")) and known == version,
        f"alias champion is version {known}, the run's is {version}",
    )
    check_same(table, by_process, open_run(lab.settings, run.id))


def faults(smoke: Smoke) -> None:
    """Everything that may go wrong while runs go on."""
    lab, site, table = smoke.the_lab(), smoke.site, smoke.table
    try:
        chart, commit = former_chart(smoke.folder / "former")
    except NoFormerChart as reason:
        table.leave("the release is upgraded from the former chart", str(reason))
        chart, commit = CHART, "this checkout"

    def impossible() -> None:
        # The release goes back to the former chart meanwhile: the disturbed run is there when it
        # is upgraded. What is impossible stays so whatever MLflow does.
        with ThreadPoolExecutor(1) as pool:
            back = pool.submit(site.helm, "upgrade", site.values(), 600, chart)
            impossible_run(lab, table)
            back.result()

    parts: dict[str, Callable[[], object]] = {
        "the cancelled run": lambda: cancelled_run(lab, table),
        "the impossible run": impossible,
        "the disturbed run": lambda: disturbed_run(lab, site, table, LIMIT, commit),
    }
    for what, part in parts.items():
        try:
            part()
        except Exception as error:  # noqa: BLE001  (one that fails keeps no other back)
            table.check(f"{what} goes through", False, error)


def commands(smoke: Smoke) -> None:
    """``fedrisk run`` as a user gives it, with an impossible image, and killed, side by side."""
    with ThreadPoolExecutor(2) as pool:
        parts = [
            pool.submit(no_image, smoke.site, smoke.table, smoke.folder / "no-image"),
            pool.submit(killed_command, smoke.site, smoke.table, smoke.folder / "killed"),
        ]
    for part in parts:
        part.result()


def isolation(smoke: Smoke) -> None:
    """What a hospital cannot do."""
    check_pods(smoke.the_lab().watch.seen, smoke.node, smoke.table)
    check_access(smoke.site, smoke.table)
    check_taint(smoke.site, smoke.table)
    check_stranger(smoke.site, smoke.table)


def standing(smoke: Smoke) -> None:
    """More and more hospitals with standing SuperNodes, and a run that these train."""
    # The home of the Airflow before it: the database is there already.
    grow_and_train(smoke.site, smoke.table, smoke.folder / HOME, LIMIT)


def uninstall(smoke: Smoke) -> None:
    """The release goes, and all that it made with it."""
    site, table = smoke.site, smoke.table
    site.cluster.helm("uninstall", "fedrisk", "--wait", "--timeout", "300s", limit=330)
    left: list[str] = []

    def nothing() -> bool:
        left[:] = left_behind(site.cluster)
        return not left

    with contextlib.suppress(Exception):
        until("nothing is left", nothing, 120)
    table.check("uninstall leaves nothing", not left, ", ".join(left))


STAGES: dict[str, Callable[[Smoke], None]] = {
    "install": install,
    "run": same_run,
    "faults": faults,
    "commands": commands,
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

    Args:
        smoke: What they share.
        wanted: Their names.
    """
    table = smoke.table
    if "run" in wanted and smoke.beside is None:
        # It begins while the release is installed.
        smoke.beside = ProcessRun(smoke.folder / "process", "same", SAME)
    with table.stage("install"):
        install(smoke)
    beside = [name for name in ("run", "faults", "commands", "isolation") if name in wanted]
    if beside:
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


@contextlib.contextmanager
def the_cluster(tag: str) -> Iterator[Cluster]:
    """KUBECONFIG's cluster; without it the tests' own, which is given the images.

    Args:
        tag: Of the images; empty to build this checkout's. A cluster of KUBECONFIG must know them.
    """
    helm = os.environ.get("HELM", "helm")
    if os.environ.get("KUBECONFIG"):
        yield Cluster(os.environ["KUBECONFIG"], helm_program=helm)
        return
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        import kubernetes_cluster as own
    except ImportError:
        raise SystemExit("KUBECONFIG is not set: name a cluster that knows the images.") from None
    if own.missing():
        raise SystemExit(f"KUBECONFIG is not set, and {own.missing()}.")
    try:
        kubeconfig = own.start_cluster()
        tag = ready_images(IMAGES, tag)
        own.load_images(S3_IMAGE, *(f"fedrisk-{name}:{tag}" for name in IMAGES))
        with own.volumes_of_user():
            yield Cluster(str(kubeconfig), helm_program=own.helm_program())
    finally:
        own.stop_cluster()


def main() -> int:
    """Go through all stages and print the table.

    Returns:
        0 only if all checks held.
    """
    parser = argparse.ArgumentParser(prog="python -m smoke.cluster", description=__doc__)
    parser.add_argument("--tag", default="", help="of the images; default: build this checkout's")
    parser.add_argument("--only", default="", help="stages, comma-separated, beside install")
    parser.add_argument("--json", type=Path, help="write the table there too")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else list(STAGES)
    if unknown := set(wanted) - set(STAGES):
        parser.error(
            f"--only: no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}"
        )
    table = Table()
    # Being told to end is the same as Ctrl-C: everything is put away.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with (
            the_cluster(given.tag) as cluster,
            smoke_on(cluster, given.tag or BUILT, table) as smoke,
        ):
            go_through(smoke, wanted)
    except KeyboardInterrupt:
        table.check("nobody interrupts", False, "Ctrl-C; everything has been put away")
    except Exception as error:  # noqa: BLE001  (the table has it)
        # What a stage raised is in it already; before the first stage nothing is.
        if all(each.held for each in table.checks):
            table.check("no fault of the command", False, error)
    return table.end(given.json)


if __name__ == "__main__":
    sys.exit(main())
