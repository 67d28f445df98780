"""Git ignores the keys that the documentation's commands write to the checkout."""

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
"""Their inputs and outputs: docs/onboarding.md, docs/compose.md."""


def ignored(checkout: Path, path: str) -> bool:
    done = subprocess.run(
        # As for a file that is not tracked yet.
        ["git", "check-ignore", "--no-index", "--quiet", path],
        cwd=checkout,
        timeout=400,
        check=False,
    )
    assert done.returncode in (0, 1), "git does not answer"
    return done.returncode == 0


@pytest.mark.parametrize("path", SECRET)
def test_a_key_is_not_added_by_mistake(checkout: Path, path: str) -> None:
    assert ignored(checkout, path)


def test_the_projects_files_are_not_ignored(checkout: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=checkout, capture_output=True, text=True, timeout=400, check=True
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
        timeout=400,
        check=True,
    )
    assert taken.stdout == ""
