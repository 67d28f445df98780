"""Which processes still run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended stays until its parent asks for its exit code."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _now(home: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            environment, command = process.environ(), process.cmdline()
            alive = process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        mine = environment.get("FEDRISK_HOME") == str(home) or str(home) in " ".join(command)
        if mine and alive and process.pid != os.getpid():
            found.append(" ".join(command)[:200])
    return found


def processes_of(home: Path, grace: float = 60.0) -> list[str]:
    """Command lines of the processes that work for a home folder.

    Args:
        home: The folder.
        grace: Seconds that a process which is ending may still take.
    """
    deadline = time.monotonic() + grace
    while (found := _now(home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
