"""The chart of the commit before its last change, which a release is upgraded from."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from ruamel.yaml import YAML

from smoke.cluster.site import CHART
from smoke.cluster.tools import CALL
from smoke.command import ROOT


class NoFormerChart(Exception):  # noqa: N818  (the name is the message)
    """There is no chart that this one's release could have been upgraded from."""


def former_chart(folder: Path, root: Path | None = None) -> tuple[Path, str]:
    """The chart as it was before its last change that can be upgraded from.

    Charts of one minor version can: what needs more than `helm upgrade` raises it.

    Args:
        folder: Where to put it.
        root: Of the checkout; this one's by default.

    Returns:
        Its folder and commit.

    Raises:
        NoFormerChart: The history has none.
    """
    root = root or ROOT
    inside = CHART.relative_to(ROOT)
    changed = _git(root, "status", "--porcelain", "--", str(inside))
    commits = _git(root, "log", "--format=%h", "--", str(inside)).split()
    commit = next(iter(commits if changed else commits[1:]), None)
    if commit is None:
        raise NoFormerChart("the history is not there, as in a shallow clone")
    series = _series((root / inside / "Chart.yaml").read_text(encoding="utf-8"))
    if _series(_git(root, "show", f"{commit}:{inside}/Chart.yaml")) != series:
        raise NoFormerChart(f"this is the first chart of version {series}")
    done = subprocess.run(
        ["git", "archive", "--format=tar", commit, str(inside)],
        cwd=root,
        capture_output=True,
        timeout=CALL,
        check=True,
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / inside, commit


def _series(chart: str) -> str:
    version = str(YAML(typ="safe").load(chart)["version"])
    return version.rpartition(".")[0]


def _git(root: Path, *arguments: str) -> str:
    """Output of git; empty where this is no clone or the commit is not in it."""
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=CALL, check=False
    )
    return done.stdout
