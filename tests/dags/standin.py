"""A stand-in for fedrisk's images that ends as it is told, for the real cluster of the tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kubernetes_cluster import CLUSTER

STANDIN = """#!/bin/sh
# What a step would do is in the run's id.
run=$6
echo "step $2 of $run begins"
case "$run" in
*refused*) echo "error: gate auroc: 0.5, wanted 0.7." >&2; exit 3;;
*away*) echo "error: no store at all." >&2; exit 4;;
*slow*) trap 'exit 143' TERM; for i in $(seq 1800); do sleep 1; done;;
esac
sleep 3
echo "step $2 ends"
"""


def load_standin(scratch: Path, *images: str) -> None:
    """Make the cluster know images whose ``fedrisk`` ends as the run's id says.

    Args:
        scratch: Where they are made.
        images: Their names.
    """
    root, tar = scratch / "root", scratch / "image.tar"
    for folder in ("bin", "tmp", "etc", "var/lib/fedrisk"):
        (root / folder).mkdir(parents=True)
    _run("cp", "/bin/busybox", root / "bin")
    for name in ("sh", "echo", "seq", "sleep"):
        (root / "bin" / name).symlink_to("busybox")
    script = root / "bin" / "fedrisk"
    script.write_text(STANDIN)
    script.chmod(0o755)
    for image in images:
        _run(CLUSTER / "mkimage", "--user", "1000:1000", root, image, tar)
        _run(CLUSTER / "load-image", tar)


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(each) for each in command], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
