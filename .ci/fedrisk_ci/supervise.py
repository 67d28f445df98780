"""Run one command, count all that it starts, and leave nothing of it.

    supervise.py [--group FOLDER] [--daemons] COMMAND...

Processes under test make sessions and groups of their own and lose their parents, so neither a
process group nor their parents find them. This process is the reaper of them all (Linux,
``PR_SET_CHILD_SUBREAPER``): their CPU time becomes its own children's, which its parent reads with
``wait4``, and what is left when the command has ended is ended too.

On SIGTERM the command is interrupted as by Ctrl-C, so that tests take down what they have set up,
then all is terminated, then killed. The same happens when the process that started this one dies.
The exit code is the command's, or 128 plus the signal that ended it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

INTERRUPT_GRACE = 45.0
"""Seconds that an interrupted command has to take down what it has set up."""
TERMINATE_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
KILL_GRACE = 10.0
"""Seconds that killed processes have to disappear."""
LONGEST_STOP = INTERRUPT_GRACE + TERMINATE_GRACE + KILL_GRACE + 5
"""Seconds after which this process itself has ended, once it was asked to."""
_POLL = 0.05
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def descendants(of: int) -> list[int]:
    """All processes below one, as ``/proc`` has them now."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything; the parent is the second word after it.
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, to_visit = [], [of]
    while to_visit:
        below = children.get(to_visit.pop(), [])
        found += below
        to_visit += below
    return found


class Supervisor:
    """One command and its descendants."""

    def __init__(self, command: list[str]) -> None:
        self._asked = False
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # A handler, unlike an ignored signal, is not inherited: Ctrl-C works in the command.
            signal.signal(each, self._ask)
        parent = os.getppid()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        self._asked = self._asked or os.getppid() != parent
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        self._code: int | None = None

    def _ask(self, *_: object) -> None:
        self._asked = True

    def _reap(self) -> bool:
        """Take leave of all that has ended; whether anything is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._child.pid:
                code = os.waitstatus_to_exitcode(status)
                self._child.returncode = code
                self._code = code if code >= 0 else 128 - code

    def _wait(self, seconds: float, for_all: bool) -> None:
        """Wait for the command, or for all that it started, but not longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        while self._reap() and (for_all or self._code is None) and time.monotonic() < deadline:
            time.sleep(_POLL)

    def _end_all(self) -> None:
        """Terminate and then kill every descendant, those too that appear meanwhile."""
        for each, grace in ((signal.SIGTERM, TERMINATE_GRACE), (signal.SIGKILL, KILL_GRACE)):
            deadline = time.monotonic() + grace
            signalled: set[int] = set()
            while self._reap() and time.monotonic() < deadline:
                for pid in set(descendants(os.getpid())) - signalled:
                    signalled.add(pid)
                    try:
                        os.kill(pid, each)
                    except ProcessLookupError:
                        continue
                time.sleep(_POLL)

    def run(self, daemons: bool) -> int:
        """Wait for the command and end what is left of it.

        Args:
            daemons: What the command leaves running is meant to stay, unless it was stopped.
        """
        while self._reap() and self._code is None and not self._asked:
            time.sleep(_POLL)
        stopped = self._code is None
        if stopped:
            os.killpg(self._child.pid, signal.SIGINT)
            self._wait(INTERRUPT_GRACE, for_all=False)
        if stopped or not daemons:
            self._end_all()
        return 128 + signal.SIGKILL if self._code is None else self._code


def main(arguments: list[str]) -> int:
    """Join the group that is asked for, then run the command."""
    daemons = False
    while arguments[0].startswith("--"):
        option = arguments.pop(0)
        if option == "--daemons":
            daemons = True
        elif option == "--group":
            (Path(arguments.pop(0)) / "cgroup.procs").write_text(str(os.getpid()))
        else:
            raise SystemExit(f"unknown option {option}")
    return Supervisor(arguments).run(daemons)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
