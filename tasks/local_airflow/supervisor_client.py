"""The command's client of its supervisor: start processes, watch them, terminate them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tasks.errors import FedriskError
from tasks.launch.environment import settings_environment
from tasks.settings import Settings

SUPERVISOR_EXIT = 60.0
"""Seconds for the supervisor to terminate everything before it is killed itself."""


class ProcessDied(FedriskError):  # noqa: N818  (names the event)
    """A process of the embedded Airflow ended unexpectedly."""


class SupervisedProcesses:
    """Processes that are terminated when this one ends."""

    def __init__(self, settings: Settings) -> None:
        """Start the supervisor.

        Args:
            settings: Set in the supervisor's environment to identify its home.
        """
        self._logs: dict[str, Path] = {}
        self._codes: dict[str, int] = {}
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "tasks.local_airflow.supervisor"],
            env={**os.environ, **settings_environment(settings)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        for line in self._supervisor.stdout or ():
            event = json.loads(line)
            if "ended" in event:
                self._codes[event["ended"]] = event["code"]

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        folder: Path,
        *,
        last: bool = False,
    ) -> None:
        """Start a process.

        Args:
            name: Its name in messages.
            command: Program and arguments.
            environment: Its whole environment.
            log: File for its output; overwritten.
            folder: Its working folder.
            last: Start it only after all others have ended, even where the command was killed.
        """
        self._logs[name] = log
        request = {
            "name": name,
            "command": list(command),
            "environment": dict(environment),
            "log": str(log),
            "folder": str(folder),
            "last": last,
        }
        pipe = self._supervisor.stdin
        try:
            if pipe is not None:
                pipe.write(json.dumps(request).encode() + b"\n")
                pipe.flush()
        except BrokenPipeError:
            raise ProcessDied("the supervisor of Airflow's processes has ended.") from None

    def done(self, name: str) -> bool:
        """Whether a process that should end has succeeded.

        Raises:
            ProcessDied: It failed; the message contains its last lines.
        """
        code = self._codes.get(name)
        if code:
            raise ProcessDied(self._exit_text(name, code))
        return code is not None

    def check(self, *names: str) -> None:
        """Raise if one of the processes has ended.

        Raises:
            ProcessDied: One has; the message contains its last lines.
        """
        if self._supervisor.poll() is not None:
            raise ProcessDied("the supervisor of Airflow's processes has ended.")
        for name in names:
            if name in self._codes:
                raise ProcessDied(self._exit_text(name, self._codes[name]))

    def _exit_text(self, name: str, code: int) -> str:
        tail = ""
        with contextlib.suppress(OSError):
            lines = self._logs[name].read_text(encoding="utf-8", errors="replace").splitlines()
            tail = "\n".join(f"  {line[:300]}" for line in lines[-8:])
        return f"{name} ended with code {code}; its log is {self._logs[name]}:\n{tail}"

    def close(self) -> None:
        """Terminate all processes and wait for their end."""
        if self._supervisor.stdin is not None:
            with contextlib.suppress(OSError):
                self._supervisor.stdin.close()
        try:
            self._supervisor.wait(SUPERVISOR_EXIT)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        self._listener.join(1)


@contextlib.contextmanager
def supervise(settings: Settings) -> Iterator[SupervisedProcesses]:
    """Provide a supervisor whose processes end with the block."""
    processes = SupervisedProcesses(settings)
    try:
        yield processes
    finally:
        processes.close()
