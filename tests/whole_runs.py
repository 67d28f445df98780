"""The default run, made once and looked at by all tests that need one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests_processes import processes_of

RUN_DEADLINE = 900


@dataclass(frozen=True)
class FinishedRun:
    """One `fedrisk run` as a user sees it."""

    code: int
    output: str
    errors: str
    result: dict[str, Any]
    home: Path
    left_over: list[str]


def fedrisk(home: Path, *arguments: str, deadline: float = RUN_DEADLINE) -> FinishedRun:
    """Run the command fedrisk to its end."""
    process = subprocess.run(
        [sys.executable, "-m", "tasks.cli", *arguments],
        env={**os.environ, "FEDRISK_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
    )
    lines = process.stdout.strip().splitlines()
    result = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return FinishedRun(
        code=process.returncode,
        output=process.stdout,
        errors=process.stderr,
        result=result,
        home=home,
        left_over=processes_of(home),
    )


@pytest.fixture(scope="session")
def runs_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all runs, so that databases are made once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def default_run(runs_home: Path) -> FinishedRun:
    """`fedrisk run` as `make run` calls it: the stroke study on its synthetic cohort."""
    return fedrisk(runs_home, "run", "--json")
