"""Background work gets what others leave, and the machine is as it was afterwards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from fedrisk_ci.background import AUTOGROUP, Background, background, share

MOUNTS = {
    "v1": "cgroup /cg cgroup rw,cpu,cpuacct 0 0\n",
    "v2": "cgroup2 /cg cgroup2 rw 0 0\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with autogroup scheduling and no cgroups."""
    (tmp_path / AUTOGROUP).parent.mkdir(parents=True)
    (tmp_path / AUTOGROUP).write_text("1\n")
    (tmp_path / "proc/mounts").write_text("proc /proc proc rw 0 0\n")
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_text("2:cpu,cpuacct:/own\n0::/own\n")
    return tmp_path


@pytest.mark.parametrize(
    ("version", "files", "expected"),
    [
        ("v1", {"cpu.idle": "0", "cpu.shares": "1024"}, ("own/x", "cpu.idle", "1")),
        ("v1", {"cpu.shares": "1024"}, ("own/x", "cpu.shares", "2")),
        ("v2", {"cpu.idle": "0", "cpu.weight": "100"}, ("x", "cpu.idle", "1")),
        ("v2", {"cpu.weight": "100"}, ("x", "cpu.weight", "1")),
    ],
)
def test_a_cgroup_of_the_lowest_weight_is_made_and_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch, version: str, files: dict[str, str], expected: Any
) -> None:
    (root / "cg/own").mkdir(parents=True)
    (root / "proc/mounts").write_text(MOUNTS[version])
    (root / "cg/cgroup.controllers").write_text("cpu memory" if version == "v2" else "")
    (root / "cg/cgroup.subtree_control").write_text("")
    make = Path.mkdir

    def kernel_makes(path: Path) -> None:
        make(path)
        for name, value in files.items():
            (path / name).write_text(value)

    monkeypatch.setattr(Path, "mkdir", kernel_makes)
    monkeypatch.setattr(Path, "rmdir", lambda path: shutil.rmtree(path))
    folder, file, value = expected
    with background("x", root) as found:
        assert found.group == root / "cg" / folder
        assert (found.group / file).read_text() == value
        assert f"cgroup {version} with {file} {value}" == found.how
        found.restore_weight()
        assert (found.group / file).read_text() == files[file]
    assert not found.group.exists()


def test_without_cgroups_autogroup_is_off_for_the_time(root: Path) -> None:
    with background("x", root) as found:
        assert (root / AUTOGROUP).read_text() == "0"
        assert found.nice
    assert (root / AUTOGROUP).read_text() == "1"


def test_where_nothing_is_allowed_it_says_that_nice_is_weak(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    with background("x", root) as found:
        assert "weak" in found.how
    assert (root / AUTOGROUP).read_text() == "1\n"


def test_on_this_machine_it_leaves_the_cpu_to_others() -> None:
    name = f"fedrisk-test-{os.getpid()}"
    with background(name) as found:
        if "weak" in found.how:
            pytest.skip("this machine lets this user lower no weight")
        assert share(found, 0.5) < 0.1
    assert found.group is None or not found.group.exists()
    if "v1" in found.how:
        assert share(Background("as others"), 0.5) > 0.2
