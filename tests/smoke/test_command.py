"""Commands of the smoke commands end in time, with all that they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smoke import command
from smoke.command import ROOT, StackError, call
from smoke.waits import remaining, until


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(process: int) -> bool:
    return not remaining(lambda: alive(process), 120, every=0.05)


def a_child(file: Path) -> int:
    return int(until("a child is started", lambda: file.exists() and file.read_text().strip(), 120))


@pytest.mark.parametrize("waits", ["; wait", ""], ids=["at work", "over, but for its output"])
def test_what_a_command_has_started_ends_with_it_at_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: str
) -> None:
    # The shell starts it deaf to SIGINT, so it has to be killed.
    monkeypatch.setattr(command, "GRACE", 0.3)
    file = tmp_path / "child"
    with pytest.raises(StackError, match="did not end within 3 s"):
        call("sh", "-c", f"sleep 300 & echo $! >{file}{waits}", deadline=3)
    assert gone(a_child(file))


def test_a_command_is_asked_before_it_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f"trap 'echo in order >{told}; exit' INT; while :; do sleep 0.05; done"
    with pytest.raises(StackError):
        call("sh", "-c", script, deadline=3)
    assert told.read_text() == "in order\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_program_ends_its_command(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "child"
    program = (
        "import os, signal\nfrom smoke.command import call\n"
        "signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))\n"
        f"call('sh', '-c', 'echo $$ >{file}; exec sleep 300')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Not as a shell's background job, which is deaf to SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    child = a_child(file)
    # The program is still starting it, for all that one knows.
    time.sleep(0.5)
    os.kill(process.pid, number)
    assert process.wait(400) != 0
    assert gone(child)


def test_a_program_that_is_not_there_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StackError, match="docker ps: No such file or directory"):
        call("docker", "ps")
