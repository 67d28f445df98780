"""The supervisor: a small process that starts and terminates all processes of one command.

The command (``fedrisk run``, ``fedrisk up``) starts one supervisor and sends it requests to start
processes, one JSON line each, on its standard input. When that pipe closes (normal exit, error,
Ctrl-C or SIGKILL of the command), the supervisor terminates all its descendants; on Linux it is
the subreaper, so it also finds processes that left their session. A request with ``"last": true``
is deferred until all others have ended, to clean up outside this machine. The supervisor reports
in JSON lines on standard output: ``{"ended": name, "code": n}`` per process and, at the end,
``{"closed": count}``.
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
"""Seconds for Airflow to exit; a running step has ``process_tree.PROCESS_GRACE`` of them."""
CLEANUP_DEADLINE = 40.0
"""Seconds for each deferred request."""


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
        # The command is gone; only the processes remain to be terminated.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123


def _serve(running: dict[str, subprocess.Popen[bytes]], last: list[dict[str, Any]]) -> None:
    """Start processes on request and report their ends until the pipe closes.

    Args:
        running: The running processes by name.
        last: Receives the requests to run at the end.
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
    """Supervise processes until standard input closes."""
    import psutil

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The pipe decides when to stop; the command handles the terminal's Ctrl-C.
        signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else _interrupt)
    become_subreaper()
    me = psutil.Process()
    running, last = dict[str, subprocess.Popen[bytes]](), list[dict[str, Any]]()
    try:
        _serve(running, last)
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
