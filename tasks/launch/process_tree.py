"""Start processes and terminate them with all their descendants."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

PROCESS_GRACE = 4.0
"""Seconds between asking a process tree to end and ending it; Airflow itself waits 5."""
KILL_GRACE = 0.5
"""The same where nothing of the processes is worth a polite end."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class ProcessTree:
    """Processes that end with the one that started them, whatever ends that.

    Each has a session of its own, so that one signal reaches all that it forks, and ends when its
    parent does (Linux). Orphans of theirs come back to this process, so that a grandchild in a
    session of its own, such as a SuperNode, is found too.
    """

    def __init__(self, *, force: bool = False) -> None:
        """Start none yet.

        Args:
            force: Kill at the end without asking first; for processes that keep nothing of worth.
        """
        import psutil

        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._force = force
        become_subreaper()
        self._me = psutil.Process()
        self._before = {child.pid for child in self._me.children()}

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> int:
        """Start a process.

        Args:
            name: What it is called.
            command: Program and arguments.
            environment: All of its environment.
            log: File that its output is appended to; the process works in its folder.

        Returns:
            Its process id, which is its group's too.
        """
        with log.open("ab") as output:
            return self.open(name, command, environment, output, log.parent).pid

    def open(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        output: IO[bytes] | int = subprocess.PIPE,
        folder: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process and give it back, as ``start`` does."""
        process = self._running[name] = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent if self._force else end_with_parent,
        )
        return process

    def ended(self) -> dict[str, int]:
        """Exit codes of the processes that have ended, by name."""
        codes = {name: process.poll() for name, process in self._running.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def ask(self, name: str, patience: float) -> None:
        """Ask one process to end by itself, and give it some time.

        Args:
            name: What it is called.
            patience: Seconds.
        """
        process = self._running.get(name)
        if process is not None and process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)

    def end(self) -> None:
        """End all processes and all that they started."""
        for process in self._running.values() if self._force else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        end_processes(self._live, KILL_GRACE if self._force else PROCESS_GRACE)

    def _live(self) -> list[psutil.Process]:
        new = [child for child in self._me.children() if child.pid not in self._before]
        return [each for child in new for each in (child, *_descendants(child))]


@contextlib.contextmanager
def process_tree() -> Iterator[Callable[[list[str], Mapping[str, str]], subprocess.Popen[bytes]]]:
    """Give a function that starts a process; on leaving, end it with all that it started."""
    tree = ProcessTree()
    try:
        yield lambda command, environment: tree.open(command[0], command, environment)
    finally:
        tree.end()


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error's message.

    Args:
        log: The file.
        lines: How many.
    """
    with contextlib.suppress(OSError):
        text = log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line[:300]}" for line in text[-lines:])
    return ""


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
