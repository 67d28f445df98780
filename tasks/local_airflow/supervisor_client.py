"""The command's side of the keeper: start processes, hear of their end, end them all."""

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
"""Seconds that the keeper gets to end everything before it is killed itself."""


class ProcessDied(FedriskError):  # noqa: N818  (it names what happened)
    """A process of the embedded Airflow ended though it should not have."""


class SupervisedProcesses:
    """Processes that end with this one."""

    def __init__(self, settings: Settings) -> None:
        """Start the keeper.

        Args:
            settings: Named in the keeper's environment, so that one sees whose it is.
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
            name: What it is called in messages.
            command: Program and arguments.
            environment: All of its environment.
            log: File for its output, written anew.
            folder: Its working folder.
            last: Start it only when all others have ended, however that came about.
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
            raise ProcessDied("the keeper of Airflow's processes has ended.") from None

    def done(self, name: str) -> bool:
        """Whether a process that should end has ended well.

        Raises:
            ProcessDied: It ended with an error; the message has its last lines.
        """
        code = self._codes.get(name)
        if code:
            raise ProcessDied(self._exit_text(name, code))
        return code is not None

    def check(self, *names: str) -> None:
        """Raise if one of the processes has ended.

        Raises:
            ProcessDied: One has; the message has its last lines.
        """
        if self._supervisor.poll() is not None:
            raise ProcessDied("the keeper of Airflow's processes has ended.")
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
        """End all processes and wait until they have."""
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
def supervised_processes(settings: Settings) -> Iterator[SupervisedProcesses]:
    """Processes that have ended when the block is left."""
    processes = SupervisedProcesses(settings)
    try:
        yield processes
    finally:
        processes.close()
