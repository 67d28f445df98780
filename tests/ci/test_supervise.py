"""A supervised command: its exit code, all its CPU time, and nothing that it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fedrisk_ci.supervise import descendants
from tests_processes import runs

from smoke.waits import until

SUPERVISE = Path(__file__).parent.parent.parent / ".ci" / "fedrisk_ci" / "supervise.py"
AWAY = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while time.process_time() < float(sys.argv[2]):
            pass
        open(sys.argv[1] + ".new", "w").write(str(os.getpid()))
        os.rename(sys.argv[1] + ".new", sys.argv[1])
        time.sleep(600)
    os._exit(0)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""
"""Leaves a process in a session of its own that no longer has its parent, once it has used CPU."""


def supervised(*command: str, options: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", str(SUPERVISE), *options, *command])


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


@pytest.mark.parametrize(
    ("code", "expected"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_the_exit_code_is_the_commands(code: str, expected: int) -> None:
    assert supervised(*python(code)).wait(60) == expected


def test_a_process_that_left_its_session_and_parent_is_ended_and_counted(tmp_path: Path) -> None:
    where = tmp_path / "pid"
    process = supervised(*python(AWAY, str(where), "0.5"))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert not runs(int(where.read_text()))
    assert usage.ru_utime + usage.ru_stime > 0.5


def test_what_is_meant_to_stay_stays(tmp_path: Path) -> None:
    where = tmp_path / "pid"
    assert supervised(*python(AWAY, str(where), "0"), options=("--daemons",)).wait(60) == 0
    psutil.Process(int(where.read_text())).kill()


def test_a_stopped_command_takes_down_what_it_set_up(tmp_path: Path) -> None:
    code = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
try:
    (folder / "up").touch()
    time.sleep(600)
except KeyboardInterrupt:
    (folder / "down").touch()
    raise SystemExit(2)
"""
    process = supervised(*python(code, str(tmp_path)))
    until("the command is up", lambda: (tmp_path / "up").exists(), 60)
    process.terminate()
    assert process.wait(60) == 2
    assert (tmp_path / "down").exists()


def test_what_ignores_every_request_is_killed(tmp_path: Path) -> None:
    where = tmp_path / "pid"
    ignore = "import signal\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\n"
    hurried = (
        "import sys; from fedrisk_ci import supervise as s\n"
        "s.INTERRUPT_GRACE = s.TERMINATE_GRACE = 0.3\n"
        "sys.exit(s.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        python(hurried, *python(ignore + AWAY + "time.sleep(600)", str(where), "0")),
        env={**os.environ, "PYTHONPATH": str(SUPERVISE.parent.parent)},
    )
    until("the command has started", where.exists, 60)
    below = [int(where.read_text()), *descendants(process.pid)]
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGKILL
    assert not [pid for pid in below if runs(pid)]


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    where = tmp_path / "pid"
    command = [sys.executable, "-I", str(SUPERVISE)]
    command += python(AWAY + "time.sleep(600)", str(where), "0")
    starter = python(f"import subprocess, time; subprocess.Popen({command!r}); time.sleep(600)")
    process = subprocess.Popen(starter)
    until("the command has started", where.exists, 60)
    below = [int(where.read_text()), *descendants(process.pid)]
    process.kill()
    process.wait(60)
    until("all have ended", lambda: not any(map(runs, below)), 120)
