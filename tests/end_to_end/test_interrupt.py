"""Ctrl-C in the middle of the main job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests_processes import processes_of

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end, pytest.mark.timeout(400)]


def test_ctrl_c_ends_every_process_and_keeps_what_is_done(home: Path, default_run: Any) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", "run", "--run", "interrupted"],
        env={**os.environ, "FEDRISK_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    manifests = home / "runs" / "interrupted" / "manifests"
    try:
        deadline = time.monotonic() + 240
        while not list(manifests.glob("collect.*.json")):
            assert process.poll() is None, process.stdout.read().decode()[-2000:]
            assert time.monotonic() < deadline, "no hospital's table was collected in time"
            time.sleep(0.5)
        # A terminal's Ctrl-C reaches the whole foreground group.
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 130
    assert processes_of(home) == []
    assert list(manifests.glob("collect.*.json"))
    assert not list(manifests.glob(".*"))
