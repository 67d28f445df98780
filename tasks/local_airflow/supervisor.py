"""The keeper: a small process that owns all processes of one command and outlives none of them.

The command (``fedrisk run``, ``fedrisk up``) starts one keeper and asks it, one JSON line a time
on its standard input, to start processes. When that pipe closes, for whatever reason (an end, an
error, Ctrl-C, even SIGKILL of the command), the keeper ends everything below it: on Linux orphans
come back to it, so a process that left its session is found as well. A request with ``"last":
true`` starts nothing yet: it is run once everything has ended, to put away what is not a process of
this machine. The keeper's answers are JSON lines on standard output: ``{"ended": name, "code": n}``
a process, and ``{"closed": count}`` at last.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tasks.launch.process_tree import become_subreaper, end_processes, end_with_parent

AIRFLOW_GRACE = 6.0
"""Seconds that Airflow gets to end; a running step gets ``process_tree.PROCESS_GRACE`` of them."""
CLEANUP_DEADLINE = 40.0
"""Seconds that each request for the end gets."""


def _start(request: dict[str, Any]) -> subprocess.Popen[bytes]:
    log = Path(request["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        return subprocess.Popen(
            request["command"],
            env=request["environment"],
            cwd=request["folder"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )


def _say(**event: object) -> None:
    try:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    except OSError:
        # The command is gone; what is left to do is to end the processes.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123


def _serve_requests(
    running: dict[str, subprocess.Popen[bytes]], last: list[dict[str, Any]]
) -> None:
    """Start what is asked for and tell what ended, until the pipe closes.

    Args:
        running: The processes that run, by name.
        last: Gets what shall be run at the end.
    """
    pending = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.1)
        if readable:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if request.get("last"):
                    last.append(request)
                else:
                    running[request["name"]] = _start(request)
        for name, process in list(running.items()):
            if (code := process.poll()) is not None:
                del running[name]
                _say(ended=name, code=code)


def main() -> None:
    """Keep processes until standard input closes."""
    import psutil

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The pipe says when to end; a Ctrl-C of the terminal is the command's to handle.
        signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else _interrupt)
    become_subreaper()
    me = psutil.Process()
    running, last = dict[str, subprocess.Popen[bytes]](), list[dict[str, Any]]()
    try:
        _serve_requests(running, last)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ended = end_processes(lambda: me.children(recursive=True), AIRFLOW_GRACE)
        for request in last:
            with contextlib.suppress(subprocess.TimeoutExpired, OSError):
                _start(request).wait(CLEANUP_DEADLINE)
        end_processes(lambda: me.children(recursive=True), 0)
        _say(closed=ended)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
