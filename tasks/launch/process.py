"""The ``process`` launcher: run one step as a child process that never outlives its caller.

Every step is the command ``fedrisk step``. This module starts it in its own session with a minimal
environment, forwards its output, terminates its process tree on failure, deadline or interruption,
and records its exit code and message (``<run>/ends/<step>.json``), so that readers need not parse
a log.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from tasks.errors import ExitCode
from tasks.launch.environment import step_environment
from tasks.launch.process_tree import process_tree
from tasks.run.ending import Ending, StepRecord, error_message
from tasks.run.folder import RunFolder
from tasks.run.steps import owner_of, step_arguments
from tasks.settings import Settings

SIGNALLED = 128
"""Exit codes above it are 128 plus the number of a signal, as in shells."""


def launch_step(
    name: str,
    *,
    study: str,
    run: str,
    settings: Settings,
    hospital: str | None = None,
    options: Sequence[str] = (),
    emit: Callable[[str], None] = print,
    deadline: float | None = None,
) -> Ending:
    """Run one step as a process and wait for it.

    Args:
        name: The step's name; ``plan`` is allowed.
        study: The study's name or file.
        run: The run's id.
        settings: Passed to the step as ``FEDRISK_*``.
        hospital: The hospital, for a step that runs per hospital.
        options: Further arguments of the command.
        emit: Called with each line of the step's output.
        deadline: Seconds until the step is terminated; ``settings.step_deadline`` by default.

    Returns:
        The step's ending; a failed step raises no exception.
    """
    limit = settings.step_deadline if deadline is None else deadline
    record = StepRecord(RunFolder(settings.runs, run), name, hospital)
    key = record.key
    record.log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tasks.cli", *step_arguments(name, study, run, hospital)]
    started, lines = time.monotonic(), list[str]()
    with record.log.open("w", encoding="utf-8") as file, process_tree() as start:
        own = step_environment(settings, hospital, owner=owner_of(name, hospital))
        process = start([*command, *options], own)
        in_time = True
        for line in _lines(process, started + limit):
            if line is None:
                in_time = False
                break
            file.write(line + "\n")
            file.flush()
            emit(line)
            lines = [*lines[-199:], line]
        code = process.poll() if in_time else None
    if code is None:
        code, message = ExitCode.FAILED, f"step {key} did not end within {limit:g} s"
    elif code < 0 or code > SIGNALLED:
        number = -code if code < 0 else code - SIGNALLED
        message = f"step {key} was ended by signal {signal.Signals(number).name}"
        code = ExitCode.FAILED
    else:
        message = error_message(lines) if code else ""
    return record.write(code, message, round(time.monotonic() - started, 3))


def _lines(process: subprocess.Popen[bytes], until: float) -> Iterator[str | None]:
    """Yield a process's output lines until it exits; a final None where ``until`` passes first.

    The exit counts, not the end of the pipe, which a grandchild may keep open.
    """
    stream, rest = process.stdout, b""
    if stream is None:
        return
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            if selector.select(min(left, 0.5)):
                data = os.read(stream.fileno(), 65536)
                *whole, rest = (rest + data).split(b"\n")
                yield from (_text(line) for line in whole)
                if data:
                    continue
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))
            if process.poll() is not None:
                if rest:
                    yield _text(rest)
                return
    yield None


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace").rstrip("\r")
