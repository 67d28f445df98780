"""The default run, made once and looked at by all tests that need one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from made_once import made_once
from tests_processes import processes_of

from smoke.compare import EarlierRun
from tasks.run.folder import RunFolder

RUN = "default"
PATIENT = ("federation.deadlines.ready=400", "federation.deadlines.round=400")
"""The run's overrides: no hospital is left out of a round because other tests use the machine."""
STEP_DEADLINE, RUN_DEADLINE = 900.0, 1500.0
"""Seconds until the first hospital's table is collected, and for the rest of the run."""


@dataclass(frozen=True)
class Command:
    """One `fedrisk` command as a user sees it.

    Attributes:
        code: Its exit code.
        output: What it has printed.
        errors: What it has printed to standard error.
        left_over: Command lines of processes that it has left.
    """

    code: int
    output: str
    errors: str
    left_over: list[str]


@dataclass(frozen=True)
class WholeRun:
    """`fedrisk run` as `make run` calls it, ended by Ctrl-C at its first step, and continued.

    Attributes:
        home: FEDRISK_HOME.
        interrupted: The command that Ctrl-C has ended.
        done: Its manifests, with the time of each in ns.
        half_written: Files beside the manifests that are none.
        finished: The same command again.
    """

    home: Path
    interrupted: Command
    done: dict[str, int]
    half_written: list[str]
    finished: Command

    @property
    def result(self) -> dict[str, Any]:
        """The JSON line that ends the output; empty where there is none."""
        lines = self.finished.output.strip().splitlines()
        return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(self.home / "runs", RUN)

    @property
    def manifests(self) -> Path:
        """The folder of its manifests."""
        return self.folder.path / "manifests"

    def to_compare(self, *overrides: str) -> EarlierRun:
        """The run whose figures another launcher must give, with the overrides that it gets."""
        assert self.finished.code == 0, self.finished.errors[-900:]
        return EarlierRun(self.folder, list(overrides))


def make_run(home: Path) -> WholeRun:
    """Make the default run in a new home."""
    arguments = [sys.executable, "-m", "tasks.cli", "run", "--run", RUN, "--json"]
    arguments += [word for each in PATIENT for word in ("--set", each)]
    environment = {**os.environ, "FEDRISK_HOME": str(home)}
    manifests = home / "runs" / RUN / "manifests"

    def collected() -> bool:
        return bool(list(manifests.glob("collect.*.json")))

    def command(interrupt: bool) -> Command:
        process = subprocess.Popen(
            arguments,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + STEP_DEADLINE
            while interrupt and not collected():
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    output = "".join(process.communicate())[-2000:]
                    raise AssertionError(f"no hospital's table was collected: {output}")
                time.sleep(0.5)
            if interrupt:
                # A terminal's Ctrl-C reaches the whole foreground group.
                os.killpg(process.pid, signal.SIGINT)
            output, errors = process.communicate(timeout=RUN_DEADLINE)
        finally:
            process.kill()
        return Command(process.returncode, output, errors, processes_of(home))

    interrupted = command(interrupt=True)
    done = {path.name: path.stat().st_mtime_ns for path in manifests.glob("*.json")}
    half = [path.name for path in manifests.glob(".*")]
    return WholeRun(home, interrupted, done, half, command(interrupt=False))


@pytest.fixture(scope="session")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """The stroke study on its synthetic cohort."""

    def make(folder: Path) -> None:
        run = make_run(folder / "home")
        (folder / "run.json").write_text(json.dumps(asdict(run), default=str), encoding="utf-8")

    folder = made_once("default-run", make, tmp_path_factory)
    found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for name in ("interrupted", "finished"):
        found[name] = Command(**found[name])
    return WholeRun(**{**found, "home": Path(found["home"])})
