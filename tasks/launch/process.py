"""The ``process`` launcher: one step as a process of its own, which never outlives its caller.

Every step is the command ``fedrisk step``. This module starts it in its own session with only the
environment that it needs, passes its lines on, ends its whole process tree on failure, deadline or
interruption, and keeps how it ended (``<run>/ends/<step>.json``), so that whoever follows the run
reads the exit code and the message instead of guessing from a log.
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
from tasks.launch.environment import (
    step_environment,
)
from tasks.launch.process_tree import (
    process_tree,
)
from tasks.run.ending import Ending, StepRecord, error_message
from tasks.run.folder import RunFolder
from tasks.run.steps import owner_of, step_arguments
from tasks.settings import Settings

SIGNALLED = 128
"""Exit codes above are 128 and a signal's number, as shells have it."""


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
        name: The step's name, ``plan`` included.
        study: The study's name or file.
        run: The run's id.
        settings: Where things live; handed on as ``FEDRISK_*``.
        hospital: The hospital, for a step that runs once a hospital.
        options: More arguments of the command.
        emit: Called with each line that the step writes.
        deadline: Seconds after which the step is ended; ``settings.step_deadline`` by default.

    Returns:
        How it ended; a failed step is no exception here.
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
        intime = True
        for line in _lines(process, started + limit):
            if line is None:
                intime = False
                break
            file.write(line + "\n")
            file.flush()
            emit(line)
            lines = [*lines[-199:], line]
        code = process.poll() if intime else None
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
    """Lines that a process writes until it ends; None once where ``until`` passes before.

    The end of the process counts, not that of the pipe: a grandchild may keep the pipe open.
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
