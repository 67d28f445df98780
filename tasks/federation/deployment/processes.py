"""Processes that end with the step that started them, whatever ends it.

Each has a session of its own, so that one signal reaches all that it forks, and dies when its
parent does (Linux), so that even SIGKILL of the step leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.launch.process_tree import (
    become_subreaper,
    die_with_parent,
    end_processes,
)

if TYPE_CHECKING:
    import psutil


class Processes:
    """The processes of one federation."""

    def __init__(self) -> None:
        """Start none yet."""
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        become_subreaper()
        self._before = _children()

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> int:
        """Start a process.

        Args:
            name: What it is called.
            command: Program and arguments.
            environment: All of its environment.
            log: File that its output is appended to.

        Returns:
            Its process id, which is its group's too.
        """
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._running[name] = process
        return process.pid

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
        # Nothing of theirs is worth a polite end: the checkpoint is written atomically.
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        end_processes(lambda: [each for each in _live() if each.pid not in self._before], grace=0.5)


def _live() -> list[psutil.Process]:
    import psutil

    return psutil.Process().children(recursive=True)


def _children() -> set[int]:
    return {each.pid for each in _live()}


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
