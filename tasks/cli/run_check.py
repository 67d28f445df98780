"""Check a run's tables while its Airflow starts, so that no run begins with a wrong one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from tasks.errors import DataError, ExitCode
from tasks.files import write_atomically

if TYPE_CHECKING:
    from tasks.run.plan import Plan, Request
    from tasks.settings import Settings

LARGEST = 1 << 28
"""Bytes of a run's tables above which the steps alone look at them: it would be done twice."""
DEADLINE = 600.0
"""Seconds after Airflow's start after which the run does not wait for the check."""
END = 10.0
"""Seconds for the check to remove what it has made."""


@contextlib.contextmanager
def tables_checked(
    plan: Plan, request: Request | None, settings: Settings, say: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Start ``fedrisk study check --tables`` in a process, which ends with the block.

    Tables that are not on this machine, that are large, or that were sound at the last time and
    have not changed since are not checked.

    Args:
        plan: The run's plan.
        request: The run's options; None for a run that goes on, whose tables are not checked.
        settings: The home, which remembers what was sound, and the engine.
        say: Prints what is being waited for.

    Yields:
        A function that waits for the result.

    Raises:
        DataError: A table is not what the study says.
    """
    from tasks.launch.environment import settings_environment
    from tasks.launch.process_tree import end_with_parent
    from tasks.run.folder import RunFolder

    here = request is not None and settings.launcher == "process" and not settings.store
    fingerprint = _fingerprint(plan) if here else None
    remembered = settings.home / "checked" / plan.study.name
    known = remembered.exists() and remembered.read_text() == fingerprint
    if request is None or fingerprint is None or known:
        yield lambda: None
        return
    options = [f"--set={each}" for each in request.all_overrides()]
    options += [f"--source={request.source}"] * (request.source is not None)
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", "study", "check", request.study, "--tables", *options,
         f"--hospitals={','.join(plan.hospitals)}"],
        env={**os.environ, **settings_environment(settings)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=end_with_parent,
    )  # fmt: skip

    def wait() -> None:
        start = time.monotonic()
        try:
            said, _ = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            _end(process)
            say(f"the tables' check is not done after {DEADLINE:g} s; the steps will check them")
            return
        if (waited := time.monotonic() - start) > 1:
            say(f"the tables were checked in {waited:.1f} s more")
        if process.returncode == ExitCode.BAD_INPUT:
            # The same run id may be used again, with a plan of its own.
            shutil.rmtree(RunFolder(settings.runs, plan.run).path, ignore_errors=True)
            raise DataError(f"no run was started.\n{said.strip()}")
        if process.returncode != 0:
            say("the tables could not be checked before; the steps will check them")
            return
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(remembered, fingerprint.encode())

    with process:
        try:
            yield wait
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End the check; by itself it removes the folder that it works in."""
    process.terminate()
    try:
        process.wait(timeout=END)
    except subprocess.TimeoutExpired:
        process.kill()


def _fingerprint(plan: Plan) -> str | None:
    """What the check's answer follows from; None where there is nothing to check here."""
    from tasks.lake.tables import local_path
    from tasks.run.plan import hospital_source

    if plan.synthetic:
        return None
    own = plan.study.source.kind == "own"
    addresses = (
        [hospital_source(plan, hospital) for hospital in plan.hospitals]
        if own
        else [str(plan.source)]
    )
    files: list[tuple[str, int, int]] = []
    for address in addresses:
        path = local_path(address)
        if path is None:
            return None
        for file in [path, *(sorted(path.rglob("*")) if path.is_dir() else [])]:
            with contextlib.suppress(OSError):
                found = file.stat()
                files.append((str(file), found.st_size, found.st_mtime_ns))
    if sum(size for _, size, _ in files) > LARGEST:
        return None
    about = (version("fedrisk"), plan.study.model_dump_json(), plan.hospitals, files)
    return hashlib.sha256(repr(about).encode()).hexdigest()
