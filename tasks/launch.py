"""The ``process`` launcher: one step as a process of its own, which never outlives its caller.

Every step is the command ``fedrisk step``. This module starts it in its own session with only the
environment that it needs, passes its lines on, ends its whole process tree on failure, deadline or
interruption, and keeps how it ended (``<run>/ends/<step>.json``), so that whoever follows the run
reads the exit code and the message instead of guessing from a log.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.errors import ExitCode
from tasks.manifest import RunFolder, write_atomically
from tasks.settings import PREFIX, Settings
from tasks.store import CONSORTIUM, owner_of, read_credentials

if TYPE_CHECKING:
    import psutil

GRACE = 4.0
"""Seconds between asking a process tree to end and ending it; Airflow itself waits 5."""
SIGNALLED = 128
"""Exit codes above are 128 and a signal's number, as shells have it."""
ERROR = "error: "
"""What ``fedrisk`` puts before the message of a failed command on standard error."""
TRACEBACK = "Traceback (most recent call last):"
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
}
"""Libraries that report home unless told not to."""
_PASSED = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "JAVA_HOME"}
    | {"XDG_CACHE_HOME", "JDK_JAVA_OPTIONS"}
    | {"PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
    | {"CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    | {"http_proxy", "https_proxy", "no_proxy", "OMP_NUM_THREADS", "LD_LIBRARY_PATH"}
)
_SECRETS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})
_PASSED_PREFIXES = ("LC_", "AWS_", "SPARK_", "MLFLOW_")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Ending(BaseModel):
    """How a step's process ended.

    Attributes:
        step: The step's name.
        hospital: The hospital, for a step that runs once a hospital.
        code: Exit code as ``tasks.errors.ExitCode`` has it; a process ended by a signal or by its
            deadline counts as ``FAILED``.
        message: The error in words; empty if there is none.
        log: File with the process's output.
        seconds: Wall-clock time of the process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    hospital: str | None = None
    code: int
    message: str = ""
    log: str
    seconds: float


def read_endings(run: RunFolder) -> list[Ending]:
    """Read how the steps of a run ended, the first to end first."""
    found = []
    for path in sorted((run.path / "ends").glob("*.json"), key=lambda each: each.stat().st_mtime):
        with contextlib.suppress(ValidationError, OSError):
            found.append(Ending.model_validate_json(path.read_bytes()))
    return found


def message_of(lines: Sequence[str]) -> str:
    """A failed step's error in words.

    Args:
        lines: The end of its output.

    Returns:
        What stands from the last ``error:`` line on; else the first line of the exception that a
        traceback ends with, for what some libraries add to it (a statement, a link) says less;
        else the last line.
    """
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith(ERROR):
            return "\n".join(lines[index:]).removeprefix(ERROR).strip()
        if lines[index].startswith(TRACEBACK):
            told = (each for each in lines[index + 1 :] if each.strip() and not each[0].isspace())
            return next(told, "no message")
    return next((line for line in reversed(lines) if line.strip()), "no message")


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
    folder = RunFolder(settings.runs, run)
    key = name if hospital is None else f"{name}.{hospital}"
    log = folder.path / "logs" / f"{key}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tasks.cli", "step", name, "--study", study, "--run", run]
    command += ["--hospital", hospital] if hospital is not None else []
    started, lines = time.monotonic(), list[str]()
    with log.open("w", encoding="utf-8") as file, process_tree() as start:
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
        message = message_of(lines) if code else ""
    ending = Ending(
        step=name,
        hospital=hospital,
        code=int(code),
        message=message,
        log=str(log),
        seconds=round(time.monotonic() - started, 3),
    )
    text = json.dumps(ending.model_dump(mode="json")).encode() + b"\n"
    write_atomically(folder.path / "ends" / f"{key}.json", text)
    return ending


def step_environment(
    settings: Settings,
    hospital: str | None,
    environment: Mapping[str, str] | None = None,
    *,
    owner: str | None = None,
) -> dict[str, str]:
    """The environment of a step: what the system needs, our settings, and nothing else.

    Args:
        settings: Where things live.
        hospital: A step of one hospital is told only that hospital's lake.
        environment: Where the system's variables come from; this process by default.
        owner: Whose key of the store it gets; the hospital's or the consortium's by default.

    Raises:
        SettingsError: The owner's file of credentials is not there or not sound.
    """
    source = os.environ if environment is None else environment
    found = {
        key: value
        for key, value in source.items()
        if key in _PASSED or key.startswith(_PASSED_PREFIXES)
    }
    found |= QUIET | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    own = settings
    if hospital is not None:
        own = settings.model_copy(update={"lake": settings.lake_root(hospital)})
    if settings.credentials:
        found = {key: value for key, value in found.items() if key not in _SECRETS}
        found |= read_credentials(settings.credentials, owner or hospital or CONSORTIUM)
        own = own.model_copy(update={"credentials": ""})
    return found | settings_environment(own)


def settings_environment(settings: Settings) -> dict[str, str]:
    """The settings as the ``FEDRISK_*`` variables that make them again."""
    values = settings.model_dump(mode="json", exclude_defaults=True)
    values |= {"home": str(settings.home.absolute()), "studies": str(settings.studies.absolute())}
    return {PREFIX + key.upper(): str(value) for key, value in values.items()}


@contextlib.contextmanager
def process_tree() -> Iterator[Callable[[list[str], Mapping[str, str]], subprocess.Popen[bytes]]]:
    """Give a function that starts processes; on leaving, end them with all that they started.

    Orphans of the processes come back to this one (Linux), so that a grandchild in a session of
    its own, such as a SuperNode, is found too.
    """
    import psutil

    become_subreaper()
    me = psutil.Process()
    before = {child.pid for child in me.children()}

    def start(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )

    try:
        yield start
    finally:
        end_processes(
            lambda: [
                each
                for child in me.children()
                if child.pid not in before
                for each in [child, *_descendants(child)]
            ]
        )


def end_processes(living: Callable[[], Iterable[psutil.Process]], grace: float = GRACE) -> int:
    """End processes and whatever they start meanwhile: first asked, then forced.

    Args:
        living: Lists what still runs.
        grace: Seconds between the two.

    Returns:
        How many processes had to be ended.
    """
    import psutil

    deadline, asked, found = time.monotonic() + grace, set[int](), set[int]()
    while remaining := list(living()):
        forced = time.monotonic() > deadline
        if time.monotonic() > deadline + GRACE:
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
    """Let orphaned descendants become children of this process (Linux; elsewhere nothing)."""
    if (libc := _libc()) is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Between fork and exec: have the new process end when its parent does (Linux).

    Args:
        number: The signal that it gets then.
    """
    if (libc := _libc()) is not None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    import psutil

    with contextlib.suppress(psutil.Error):
        return process.children(recursive=True)
    return []


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
