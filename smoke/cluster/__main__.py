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
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from smoke.cluster.stages import IMAGES, S3_IMAGE, STAGES, go_through, smoke_on
from smoke.cluster.tools import Cluster
from smoke.command import ROOT
from smoke.images import BUILT, ready_images
from smoke.table import Table


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
        table.check(
            "interrupted", "it is not interrupted", False, "Ctrl-C; everything has been put away"
        )
    except Exception as error:  # noqa: BLE001  (the table has it)
        # What a stage raised is in it already; before the first stage nothing is.
        if all(each.held for each in table.checks):
            table.check("command", "no fault of the command", False, error)
    return table.end(given.json)


if __name__ == "__main__":
    sys.exit(main())
