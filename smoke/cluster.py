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
import json
import os
import shutil
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from smoke.cluster_faults import (
    cancelled_run,
    disturbed_run,
    impossible_run,
    killed_command,
    no_image,
)
from smoke.cluster_isolation import check_access, check_pods, check_stranger, check_taint
from smoke.cluster_lab import Lab, lab_of
from smoke.cluster_site import (
    CHART,
    Site,
    former_chart,
    left_behind,
    mark_node,
    unmark_node,
)
from smoke.cluster_tools import Cluster, checkout, ready
from smoke.compare import EarlierRun, ProcessRun, check_same
from smoke.images import BUILT, ready_images
from smoke.table import Table
from smoke.waits import until
from tasks.store import open_run

IMAGES = ("spark", "federation", "mlflow")
S3_IMAGE = "chrislusf/seaweedfs:4.48"
FIRST = ("hospital-1", "hospital-2", "hospital-3")
SAME = ["federation.rounds=6", "federation.deadlines.ready=400"]
"""The run that is compared with the launcher ``process``, where there is none yet."""
TRAINED = 4
"""Hospitals of the run that the standing federation trains."""
STANDING = [
    "federation.rounds=2",
    "federation.deadlines.ready=400",
    "hospitals.hospital-4={title: New, share: {rows: 900, positive_rate: 0.06}}",
]
ROLE = "fedrisk.io/role"
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
    known = _champion(smoke.site)
    table.check(
        "the champion is in the cluster's MLflow",
        bool(promoted.get("champion")) and known == version,
        f"alias champion is version {known}, the run's is {version}",
    )
    check_same(table, by_process, open_run(lab.settings, run.id))


def faults(smoke: Smoke) -> None:
    """Everything that may go wrong while runs go on."""
    lab, site, table = smoke.the_lab(), smoke.site, smoke.table
    former = former_chart(smoke.folder / "former")
    if former is None:
        table.leave(
            "the release is upgraded from the former chart",
            "the history has none of this minor version (a shallow clone has no history)",
        )
    chart, commit = former or (CHART, "this checkout")

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
    """Four hospitals and then ten with standing SuperNodes, by values alone; four are trained."""
    site, table = smoke.site, smoke.table
    superlink = "fedrisk-superlink-0"
    for count in (4, 10):
        before = site.cluster.core.read_namespaced_pod(superlink, site.cluster.namespace)
        site.add(*(f"hospital-{n}" for n in range(len(site.hospitals) + 1, count + 1)))
        site.put_secrets()
        site.helm("upgrade", site.values(supernodes=True), 900)
        found = site.pods_ready("supernode", count, 600)
        told = until(
            "all keys are registered",
            partial(_registered, site, superlink, count),
            120,
        )
        after = site.cluster.core.read_namespaced_pod(superlink, site.cluster.namespace)
        same = before.metadata.uid == after.metadata.uid and ready(after)
        table.check(
            f"{count} hospitals by values alone: all SuperNodes are connected",
            len(found) == count and same,
            f"{len(found)} ready, {told} keys registered, SuperLink restarted: {not same}",
        )
        if count == TRAINED:
            _standing_run(smoke, after.metadata.uid)


def _standing_run(smoke: Smoke, superlink: str) -> None:
    """A run in pods that the release's SuperLink and SuperNodes train.

    Args:
        smoke: What the stages share.
        superlink: What Kubernetes knows the SuperLink's pod by.
    """
    site, table = smoke.site, smoke.table
    with lab_of(site, smoke.folder / "standing", federation="standing") as lab:
        run = lab.start("standing", *STANDING, promote=False)
        state = run.wait(LIMIT)
        why = "; ".join(f"{e.step}: {e.message}" for e in run.endings() if e.code)
        table.check("a run in pods is trained by the standing federation", state == "success", why)
        if state != "success":
            return
        federated = run.manifest("federated").figures
        seen = {pod.step for pod in lab.watch.seen.values() if pod.labels[ROLE] != "step"}
        now = site.identities("superlink")["superlink"]
        told = f"run {run.id}: started" in site.cluster.log("fedrisk-superlink-0")
        rounds = dict.fromkeys(site.hospitals, federated["rounds"])
        table.check(
            "all hospitals took part in all its rounds, by the release's own processes",
            federated["participation"] == rounds and told and now == superlink and not seen,
            f"{federated['participation']}, started by the SuperLink: {told}, restarted: "
            f"{now != superlink}, pods of its own: {', '.join(sorted(seen)) or 'none'}",
        )


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
    with lab_of(smoke.site, smoke.folder / "home") as smoke.lab:
        for name in ("run", "faults", "commands", "isolation"):
            if name in wanted:
                _tried(smoke, name)
    smoke.lab = None
    for name in ("standing", "uninstall"):
        if name in wanted:
            _tried(smoke, name)


def _tried(smoke: Smoke, name: str) -> None:
    with contextlib.suppress(Exception), smoke.table.stage(name):
        STAGES[name](smoke)


def _champion(site: Site) -> str:
    """Version that MLflow's alias ``champion`` names, asked under the service's name."""
    path = "/api/2.0/mlflow/registered-models/alias?name=fedrisk-stroke&alias=champion"
    request = urllib.request.Request(
        f"http://{site.cluster.address('fedrisk-mlflow')}{path}",
        headers={"Host": "fedrisk-mlflow:5000"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return str(json.load(answer)["model_version"]["version"])


def _registered(site: Site, pod: str, count: int) -> int:
    lines = site.cluster.log(pod).splitlines()
    names = {line.split()[1] for line in lines if line.startswith("registered ")}
    return len(names) if len(names) >= count else 0


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
    sys.path.insert(0, str(checkout() / "tests"))
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
        if table.held:
            table.check("no fault of the command", False, error)
    return table.end(given.json)


if __name__ == "__main__":
    sys.exit(main())
