"""The stages of ``make compose-smoke``, gone through once for all tests here."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from smoke.compare import EarlierRun
from smoke.compose.__main__ import IMAGES, OVERRIDES, smoke
from smoke.compose.browser import find_browser
from smoke.table import Table
from tasks.run.folder import RunFolder


def _answers(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.fixture(scope="session")
def ctrl_c() -> Any:
    """What Ctrl-C does before a stack is started."""
    return signal.getsignal(signal.SIGINT)


@pytest.fixture(scope="session")
def table(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, ctrl_c: Any
) -> Table:
    """What the stages have checked on the stack."""
    if shutil.which("docker") is None or not _answers("docker", "compose", "ls"):
        reason = "no Docker engine with compose answers"
        if os.environ.get("REQUIRE_SHARED_DATA") == "1":
            pytest.fail(f"this must not be skipped here: {reason}")
        pytest.skip(reason)
    missing = [n for n in IMAGES if not _answers("docker", "image", "inspect", f"fedrisk-{n}:dev")]
    if missing:
        pytest.fail(f"there is no image fedrisk-{missing[0]}:dev: run `make images` first")
    by_process = request.getfixturevalue("resumed_run").finished
    assert by_process.code == 0, by_process.errors[-900:]
    folder: Path = tmp_path_factory.mktemp("compose")
    found = Table()
    options = argparse.Namespace(
        project="fedrisk-test",
        tag="dev",
        table=folder / "table.json",
        shots=folder if find_browser() else None,
        browser=os.environ.get("REQUIRE_SHARED_DATA") == "1",
        keep=False,
    )
    smoke(
        options,
        found,
        EarlierRun(RunFolder(by_process.home / "runs", by_process.result["run"]), OVERRIDES),
    )
    return found
