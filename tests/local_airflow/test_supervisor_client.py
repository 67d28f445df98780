"""Processes of a command end with it, however it ends and whatever session they are in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests_processes import processes_of

from tasks.local_airflow.supervisor_client import ProcessDied, SupervisedProcesses, supervise
from tasks.settings import Settings

STRAY = """
import os, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
open(sys.argv[1], "w").close()
"""
"""Starts a process that ignores SIGTERM in its own session, and exits."""

COMMAND = """
import os, sys, time
from pathlib import Path
from tasks.local_airflow.supervisor_client import supervise
from tasks.settings import Settings
settings = Settings.from_environment()
with supervise(settings) as processes:
    command = [sys.executable, "-c", sys.argv[1], sys.argv[2]]
    processes.start("stray", command, os.environ, Path(sys.argv[3]), Path.cwd())
    if len(sys.argv) > 4:
        command = [sys.executable, "-c", "print('cleaned up')"]
        processes.start("last", command, os.environ, Path(sys.argv[4]), Path.cwd(), last=True)
    time.sleep(300)
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 400
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_for_a_while(processes: SupervisedProcesses) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        processes.check("api-server")
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans come back on Linux only")
def test_a_stray_process_is_ended_with_the_block(settings: Settings, tmp_path: Path) -> None:
    environment = {**os.environ, "FEDRISK_HOME": str(settings.home)}
    with supervise(settings) as processes:
        command = [sys.executable, "-c", STRAY, str(tmp_path / "there")]
        processes.start("stray", command, environment, tmp_path / "log", tmp_path)
        wait_for(tmp_path / "there")
        assert processes_of(settings.home, grace=0)
    assert processes_of(settings.home) == []


@pytest.mark.skipif(sys.platform != "linux", reason="orphans come back on Linux only")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_a_command_that_is_killed(
    settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, STRAY, str(tmp_path / "there"), str(tmp_path / "log")],
        env={**os.environ, "FEDRISK_HOME": str(settings.home)},
        stderr=subprocess.DEVNULL,
    )
    wait_for(tmp_path / "there")
    command.send_signal(number)
    command.wait(400)
    assert processes_of(settings.home, grace=15) == []


@pytest.mark.skipif(sys.platform != "linux", reason="orphans come back on Linux only")
def test_the_last_request_is_run_even_when_the_command_is_killed(
    settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "last"
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, STRAY, str(tmp_path / "there"), str(tmp_path / "log"), log],
        env={**os.environ, "FEDRISK_HOME": str(settings.home)},
        stderr=subprocess.DEVNULL,
    )
    wait_for(tmp_path / "there")
    assert not log.exists()
    command.kill()
    command.wait(400)
    wait_for(log)
    assert processes_of(settings.home, grace=15) == []
    assert log.read_text() == "cleaned up\n"


def test_a_process_that_dies_is_reported_with_its_last_lines(
    settings: Settings, tmp_path: Path
) -> None:
    with supervise(settings) as processes:
        command = [sys.executable, "-c", "import sys; sys.exit('no disk')"]
        processes.start("api-server", command, os.environ, tmp_path / "log", tmp_path)
        with pytest.raises(ProcessDied, match=r"api-server ended with code 1(?s:.*)no disk"):
            check_for_a_while(processes)
