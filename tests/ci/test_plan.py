"""The plan of a run: every test in one stage, and only stages that this machine can run."""

from __future__ import annotations

import itertools
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from fedrisk_ci.lanes import Stage
from fedrisk_ci.main import BUDGETS
from fedrisk_ci.plan import COMPUTING, LIMIT, PLATFORM, SCIENCE, lanes

MARKERS = ("slow", "end_to_end", "stack", "platform")


def stages(shared: Path, docker: bool = False) -> dict[str, Stage]:
    return {s.name: s for lane in lanes(shared, docker, str) for s in lane.stages}


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A machine that can start an engine and a cluster."""
    for name in ("docker", "cluster"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_each_combination_of_markers_is_selected_by_one_target(
    checkout: Path, tmp_path: Path
) -> None:
    subsets = [c for n in range(5) for c in itertools.combinations(MARKERS, n)]
    lines = ["import pytest"]
    for marks in subsets:
        lines += [f"@pytest.mark.{mark}" for mark in marks]
        lines += [f"def test_{'_'.join(marks) or 'none'}(): pass"]
    (tmp_path / "test_all.py").write_text("\n".join(lines))
    selected: list[str] = []
    for target in ("test-fast", "test-slow", "test-stack", "test-platform"):
        asked = f"PYTEST_ARGS={tmp_path} --rootdir {tmp_path} --collect-only -q"
        command = ["make", "--no-print-directory", target, asked]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        selected += [line for line in done.stdout.splitlines() if "::" in line]
    assert len(selected) == len(set(selected)) == len(subsets)


def test_what_one_stage_leaves_out_another_runs(shared: Path, checkout: Path) -> None:
    found = stages(shared)
    elsewhere = {"runs": COMPUTING + SCIENCE, "cluster": ("tests/images", "tests/compose")}
    for whole, parts in elsewhere.items():
        assert {f"--ignore={part}" for part in parts} <= set(found[whole].arguments)
        ran = [a for n, s in found.items() if n not in (whole, *PLATFORM) for a in s.arguments]
        assert all(ran.count(part) == 1 and (checkout / part).exists() for part in parts)


def test_every_test_of_the_platform_is_in_one_of_its_stages(checkout: Path) -> None:
    folders = [folder for each in PLATFORM.values() for folder in each]
    assert len(folders) == len(set(folders))
    marker = re.compile(r"pytest\.mark\.platform")
    found = {p.relative_to(checkout): p.read_text() for p in checkout.glob("tests/**/test_*.py")}
    marked = {"/".join(path.parts[:2]) for path, text in found.items() if marker.search(text)}
    assert marked - {"tests/ci"} == set(folders)


def test_a_stage_needs_only_stages_that_are_there(shared: Path) -> None:
    found = stages(shared)
    assert {need for stage in found.values() for need in stage.needs} <= set(found)
    for name in PLATFORM:
        assert set(found[name].needs) == set(found) - {*PLATFORM}
    assert [s.name for s in found.values() if s.retry] == [
        "image-contents", "cluster", "compose", *PLATFORM,
    ]  # fmt: skip


def test_no_lane_may_outlast_the_run(shared: Path) -> None:
    assert all(lane.limit < LIMIT for lane in lanes(shared, False, str))


def test_without_an_engine_no_image_is_built(tmp_path: Path) -> None:
    assert not {"engine", "images", "cluster-up"} & set(stages(tmp_path))
    assert "images" in stages(tmp_path, docker=True)


def test_a_budget_is_of_a_folder_with_tests(checkout: Path) -> None:
    budgets = tomllib.loads(BUDGETS.read_text())["seconds"]
    found = [
        path.parent.relative_to(checkout).parts for path in checkout.glob("tests/**/test_*.py")
    ]
    assert set(budgets) == {"/".join(parts[:2]) for parts in found}
