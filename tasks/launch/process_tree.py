"""Start processes and terminate them with all their descendants."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


PROCESS_GRACE = 4.0
"""Seconds between SIGTERM and SIGKILL for a process tree; Airflow itself waits 5."""


_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@contextlib.contextmanager
def process_tree() -> Iterator[Callable[[list[str], Mapping[str, str]], subprocess.Popen[bytes]]]:
    """Yield a function that starts processes; terminate them and their descendants on exit.

    This process is their subreaper (Linux), so that a grandchild in its own session, such as a
    SuperNode, is found too.
    """
    import psutil

    become_subreaper()
    me = psutil.Process()
    before = {child.pid for child in me.children()}

    def start(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )

    try:
        yield start
    finally:
        end_processes(
            lambda: [
                each
                for child in me.children()
                if child.pid not in before
                for each in [child, *_descendants(child)]
            ]
        )


def end_processes(
    living: Callable[[], Iterable[psutil.Process]], grace: float = PROCESS_GRACE
) -> int:
    """Terminate processes, and any that they start meanwhile; kill them after the grace period.

    Args:
        living: Lists the processes that still run.
        grace: Seconds between SIGTERM and SIGKILL.

    Returns:
        The number of processes that had to be terminated.
    """
    import psutil

    deadline, asked, found = time.monotonic() + grace, set[int](), set[int]()
    while remaining := list(living()):
        forced = time.monotonic() > deadline
        if time.monotonic() > deadline + PROCESS_GRACE:
            break
        for process in remaining:
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE:
                    with contextlib.suppress(psutil.TimeoutExpired):
                        process.wait(0)
                    continue
                found.add(process.pid)
                if forced:
                    process.kill()
                elif process.pid not in asked:
                    asked.add(process.pid)
                    process.terminate()
        time.sleep(0.02)
    return len(found)


@functools.cache
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def become_subreaper() -> None:
    """Make orphaned descendants children of this process (Linux; a no-op elsewhere)."""
    if (libc := _libc()) is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Between fork and exec: terminate the new process when its parent ends (Linux).

    Args:
        number: The signal to send.
    """
    if (libc := _libc()) is not None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    import psutil

    with contextlib.suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def die_with_parent() -> None:
    """Kill this process when its parent ends (Linux; a no-op elsewhere)."""
    end_with_parent(signal.SIGKILL)
