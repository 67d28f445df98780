"""Which chart the smoke command upgrades a release from, and when it says that there is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from smoke.cluster.former_chart import NoFormerChart, former_chart

CHART = Path("helm/fedrisk/Chart.yaml")


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(
        ["git", *who, "-c", "commit.gpgsign=false", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
    )
    return done.stdout.strip()


def commit(root: Path, version: str, note: str) -> str:
    """Commit a chart of a version, and return the commit's short name."""
    (root / CHART).parent.mkdir(parents=True, exist_ok=True)
    (root / CHART).write_text(f"name: fedrisk\nversion: {version}\ndescription: {note}\n")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", note)
    return git(root, "log", "-1", "--format=%h")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "checkout"
    found.mkdir()
    git(found, "init", "--quiet")
    return found


def test_it_is_the_chart_before_its_last_change(root: Path, tmp_path: Path) -> None:
    before = commit(root, "0.2.0", "before")
    commit(root, "0.2.1", "now")
    folder, name = former_chart(tmp_path / "former", root)
    assert name == before
    assert "description: before" in (folder / "Chart.yaml").read_text()


def test_what_is_not_committed_yet_is_the_last_change(root: Path, tmp_path: Path) -> None:
    last = commit(root, "0.2.0", "now")
    (root / CHART).write_text("name: fedrisk\nversion: 0.2.0\ndescription: edited\n")
    folder, name = former_chart(tmp_path / "former", root)
    assert name == last
    assert "description: now" in (folder / "Chart.yaml").read_text()


def test_the_first_of_a_minor_version_has_none(root: Path, tmp_path: Path) -> None:
    commit(root, "0.2.9", "before")
    commit(root, "0.3.0", "now")
    with pytest.raises(NoFormerChart, match=r"first chart of version 0\.3"):
        former_chart(tmp_path / "former", root)


@pytest.mark.parametrize("how", ["shallow", "no clone"])
def test_without_history_it_is_not_known(root: Path, tmp_path: Path, how: str) -> None:
    commit(root, "0.2.0", "before")
    commit(root, "0.2.1", "now")
    copy = tmp_path / "copy"
    depth = ["--depth", "1", f"file://{root}"]
    git(tmp_path, "clone", "--quiet", *depth, str(copy))
    if how == "no clone":
        (copy / ".git").rename(tmp_path / "history")
    with pytest.raises(NoFormerChart, match="history is not there"):
        former_chart(tmp_path / "former", copy)
