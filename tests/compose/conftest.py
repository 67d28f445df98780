"""The stages of ``make compose-smoke``, in two parts."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from smoke_checks import need_images, shown
from whole_runs import WholeRun

from smoke.compare import EarlierRun
from smoke.compose.browser import find_browser
from smoke.compose.stages import IMAGES, smoke
from smoke.table import Table


@pytest.fixture(scope="session")
def ctrl_c() -> Any:
    """What Ctrl-C does before a stack is started."""
    return signal.getsignal(signal.SIGINT)


def gone_through(folder: Path, wanted: list[str], beside: EarlierRun | None = None) -> Table:
    """Go through the stages, and print the table however they end.

    Args:
        folder: For the table and pictures of pages.
        wanted: Those of the stages that a run can do without.
        beside: The run by processes to compare with.
    """
    found = Table()
    options = argparse.Namespace(
        project="fedrisk-test",
        tag="dev",
        table=folder / "table.json",
        shots=folder if find_browser() else None,
        browser=os.environ.get("REQUIRE_SHARED_DATA") == "1",
        keep=False,
    )
    smoke(options, found, wanted, beside)
    return found


@pytest.fixture(scope="session")
def ready(ctrl_c: Any) -> None:
    """There are an engine with compose and the images."""
    asked = ["docker", "compose", "ls"]
    if (
        shutil.which("docker") is None
        or subprocess.run(asked, capture_output=True, timeout=400, check=False).returncode
    ):
        reason = "no Docker engine with compose answers"
        if os.environ.get("REQUIRE_SHARED_DATA") == "1":
            pytest.fail(f"this must not be skipped here: {reason}")
        pytest.skip(reason)
    need_images(IMAGES)


@pytest.fixture(scope="session")
def folder(ready: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the table and pictures of pages."""
    return tmp_path_factory.mktemp("compose")


@pytest.fixture(scope="session")
def table(folder: Path, default_run: WholeRun, pytestconfig: pytest.Config) -> Table:
    """What is checked every time: the default run, and what a hospital cannot do."""
    with shown(pytestconfig):
        return gone_through(folder, ["isolation", "figures"], default_run.to_compare())


@pytest.fixture(scope="session")
def platform_table(folder: Path, pytestconfig: pytest.Config) -> Table:
    """What is checked in the platform stage: a hospital joins, both sides restart, the pages."""
    with shown(pytestconfig):
        return gone_through(folder, ["join", "restart", "pages"])
