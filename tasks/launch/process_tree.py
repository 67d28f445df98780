"""Start processes and end them with all their descendants."""

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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


PROCESS_GRACE = 4.0
"""Seconds between asking a process tree to end and ending it; Airflow itself waits 5."""


_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@contextlib.contextmanager
def process_tree() -> Iterator[Callable[[list[str], Mapping[str, str]], subprocess.Popen[bytes]]]:
    """Give a function that starts processes; on leaving, end them with all that they started.

    Orphans of the processes come back to this one (Linux), so that a grandchild in a session of
    its own, such as a SuperNode, is found too.
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
    """End processes and whatever they start meanwhile: first asked, then forced.

    Args:
        living: Lists what still runs.
        grace: Seconds between the two.

    Returns:
        How many processes had to be ended.
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
    """Let orphaned descendants become children of this process (Linux; elsewhere nothing)."""
    if (libc := _libc()) is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Between fork and exec: have the new process end when its parent does (Linux).

    Args:
        number: The signal that it gets then.
    """
    if (libc := _libc()) is not None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    import psutil

    with contextlib.suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def die_with_parent() -> None:
    """Have this process killed when its parent ends (Linux; elsewhere nothing)."""
    end_with_parent(signal.SIGKILL)
