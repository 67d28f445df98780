"""The default run, made once and looked at by all tests that need one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests_processes import processes_of

from smoke.compose.__main__ import OVERRIDES

RUN_DEADLINE = 900
INTERRUPT_DEADLINE = 600
RESUMED = "interrupted"


@dataclass(frozen=True)
class FinishedRun:
    """One `fedrisk run` as a user sees it."""

    code: int
    output: str
    errors: str
    result: dict[str, Any]
    home: Path
    left_over: list[str]


@dataclass(frozen=True)
class ResumedRun:
    """One `fedrisk run` that Ctrl-C has ended on its way, and then went on.

    Attributes:
        code: Exit code of the interrupted command.
        left_over: Processes that it left.
        done: Manifests that it left, with the time of each.
        half_written: Files beside them that are none.
        finished: The same command again.
    """

    code: int
    left_over: list[str]
    done: dict[str, int]
    half_written: list[str]
    finished: FinishedRun


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


def _interrupted(home: Path, *arguments: str) -> tuple[int, Path]:
    """Run the command until the first hospital's table is collected, then press Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", *arguments],
        env={**os.environ, "FEDRISK_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    manifests = home / "runs" / RESUMED / "manifests"
    try:
        deadline = time.monotonic() + INTERRUPT_DEADLINE
        while not list(manifests.glob("collect.*.json")):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                told, _ = process.communicate()
                raise AssertionError(f"no hospital's table was collected: {told.decode()[-2000:]}")
            time.sleep(0.5)
        # A terminal's Ctrl-C reaches the whole foreground group.
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=180)
    finally:
        process.kill()
    return process.returncode, manifests


@pytest.fixture(scope="session")
def resumed_run(tmp_path_factory: pytest.TempPathFactory) -> ResumedRun:
    """The run of the compose stack, by processes: interrupted, and then taken to its end."""
    home = tmp_path_factory.mktemp("resumed")
    settings = [word for each in OVERRIDES for word in ("--set", each)]
    command = ["run", "--run", RESUMED, "--json", *settings]
    code, manifests = _interrupted(home, *command)
    left_over = processes_of(home)
    done = {path.name: path.stat().st_mtime_ns for path in manifests.glob("*.json")}
    half = [path.name for path in manifests.glob(".*")]
    return ResumedRun(code, left_over, done, half, fedrisk(home, *command))


@pytest.fixture(scope="session")
def runs_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all runs, so that databases are made once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def default_run(runs_home: Path) -> FinishedRun:
    """`fedrisk run` as `make run` calls it: the stroke study on its synthetic cohort."""
    return fedrisk(runs_home, "run", "--json")
