"""The platform stage is skipped only where it has passed for the same files and programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from fedrisk_ci.plan import PLATFORM
from fedrisk_ci.platform_key import MAX_AGE, Passes, key, matches, patterns, patterns_of, toolchain

NOW = 1_800_000_000.0
ABOUT = ["chart/", "dags/*"]


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, timeout=60)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one commit."""
    for name in ("chart/a/x y.yaml", "dags/a.py", "dags/studies/b.yaml", "docs/c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("chart/a/x y.yaml", True),
        ("dags/a.py", True),
        ("chart/new", True),
        ("dags/studies/b.yaml", False),
        ("docs/c.md", False),
        ("new", False),
    ],
)
def test_the_key_changes_with_the_files_that_it_is_about(
    tree: Path, name: str, changes: bool
) -> None:
    before = key(tree, ABOUT, ["tools 1"])
    (tree / name).write_text("other")
    # What is not committed has no key, so it never counts as passed.
    assert key(tree, ABOUT, ["tools 1"]) == ("" if changes else before)
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "second")
    after = key(tree, ABOUT, ["tools 1"])
    assert after
    assert (after != before) is changes


def test_the_key_changes_with_the_programs(tree: Path) -> None:
    assert key(tree, ABOUT, ["tools 1"]) != key(tree, ABOUT, ["tools 2"])
    scripts = tree / "shared" / "cluster"
    scripts.mkdir(parents=True)
    (scripts / "build").write_text("v1")
    before = toolchain(tree / "shared")
    (scripts / "build").write_text("v2")
    assert toolchain(tree / "shared") != before


def test_without_git_there_is_no_key(tmp_path: Path) -> None:
    assert key(tmp_path, ABOUT, []) == ""


def test_a_pass_counts_for_its_key_and_its_time(tmp_path: Path) -> None:
    passes = Passes(tmp_path / "ci" / "platform.json")
    assert passes.found("k1", NOW) == ""
    passes.add("k1", "0123456789abcdef", NOW)
    passes.add("k2", "fedcba", NOW + 1)
    passes.add("", "fedcba", NOW)
    said = passes.found("k1", NOW + MAX_AGE - 1)
    assert "0123456789ab" in said
    assert "2027-01-15" in said
    for name, now in (("k1", NOW + MAX_AGE), ("k1", NOW - 1), ("k3", NOW), ("", NOW)):
        assert passes.found(name, now) == ""
    passes.path.write_text("[1")
    assert passes.found("k2", NOW) == ""


def test_every_file_is_in_the_key_or_listed_as_not_in_it(checkout: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=checkout, capture_output=True, text=True, check=True,
        timeout=60,
    ).stdout.strip("\0").split("\0")  # fmt: skip
    lists = patterns()
    assert {name for names in lists for name in names.split()} == {*PLATFORM, "not_about"}
    all_of_them = [pattern for each in lists.values() for pattern in each]
    faults = {}
    for path in listed:
        held = [pattern for pattern in all_of_them if matches(pattern, path)]
        if len(held) != 1:
            faults[path] = held
    assert not faults, "name each in .ci/platform.toml, once"
    assert not [p for p in all_of_them if not any(matches(p, path) for path in listed)]


@pytest.mark.parametrize("stage", PLATFORM)
def test_the_tests_of_a_stage_are_in_its_key(checkout: Path, stage: str) -> None:
    marked = [
        str(path.relative_to(checkout))
        for folder in PLATFORM[stage]
        for path in (checkout / folder).glob("**/test_*.py")
        if "pytest.mark.platform" in path.read_text()
    ]
    assert marked
    about = patterns_of(stage)
    assert not [p for p in marked if not any(matches(pattern, p) for pattern in about)]
