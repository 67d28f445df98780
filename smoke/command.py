"""Run a command in the checkout and end it, in time, with all that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The root of the checkout."""
GRACE = 30.0
"""Seconds that a command has to end in order once it is interrupted."""


class StackError(Exception):
    """A command failed."""


def call(
    *command: str,
    deadline: float = 400.0,
    check: bool = True,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout.

    Args:
        command: What to run.
        deadline: Seconds after which it is ended.
        check: Whether to raise if it fails.
        variables: More variables of its environment.

    Raises:
        StackError: It is not there, failed or took too long.
    """
    said = " ".join(command)[:200]
    try:
        # A session of its own: whatever it starts ends with it, and Ctrl-C is for us to pass on.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        raise StackError(f"{said}: {error.strerror} ({error.filename})") from None
    try:
        out, err = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        end(process)
        raise StackError(f"{said}: did not end within {deadline:g} s") from None
    except BaseException:
        end(process)
        raise
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check and done.returncode != 0:
        raise StackError(f"{said}: {(done.stderr or done.stdout)[-1500:]}")
    return done


def end(process: subprocess.Popen[str], grace: float | None = None) -> None:
    """End a command with all that it has started: asked first, then killed.

    Args:
        process: The command, which leads a session.
        grace: Seconds until it is killed; None for ``GRACE``.
    """
    try:
        _signal(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=GRACE if grace is None else grace)
    finally:
        _signal(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
