"""Keys that the documentation's commands leave in the checkout are none of git's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SECRET = [
    *("federation/authority/ca.key", "federation/tls.key"),
    *("kit/node.key", "kit/credentials.env"),
    *("kits/hospital-4/node.key", "kits/hospital-4/credentials.env"),
    *("registered/hospital-4.pub", "node.key", "node.key.pub", ".env", "hospital-4.env"),
]
"""What they make, or are given: docs/onboarding.md, docs/compose.md."""


def ignored(checkout: Path, path: str) -> bool:
    done = subprocess.run(
        # As of a file that nobody has added yet.
        ["git", "check-ignore", "--no-index", "--quiet", path],
        cwd=checkout,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 1), "git does not answer"
    return done.returncode == 0


@pytest.mark.parametrize("path", SECRET)
def test_a_key_is_not_added_by_mistake(checkout: Path, path: str) -> None:
    assert ignored(checkout, path)


def test_what_is_of_the_project_is_not_taken_for_a_key(checkout: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=checkout, capture_output=True, text=True, timeout=60, check=True
    ).stdout.split("\n")
    for path in (".env.example", "tasks/federation/flower/app/new.py", "tests/federation/new.py"):
        assert not ignored(checkout, path)
    for path in (
        "tasks/federation/standing/dispatcher.py",
        "tests/federation/conftest.py",
        ".env.example",
    ):
        assert path in listed
    taken = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert taken.stdout == ""
