"""How a benchmark prints, and how a process tree is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


def figure(name: str, value: float, unit: str, against: str | None = None) -> None:
    """Print one figure; ``against`` names the alternative that a ratio divides by."""
    line: dict[str, object] = {"name": name, "value": round(value, 4), "unit": unit}
    if against is not None:
        line["against"] = against
    print(json.dumps(line), flush=True)


@dataclass(frozen=True)
class Usage:
    """What one command used, all its descendants included.

    Attributes:
        wall: Seconds on the clock.
        cpu: CPU-seconds, of the command and of all descendants that were waited for.
        peak_mib: Highest sum of proportional set sizes over the process tree, in MiB.
        code: Exit code.
        output: Standard output.
    """

    wall: float
    cpu: float
    peak_mib: float
    code: int
    output: str


def _proportional(process: psutil.Process) -> int:
    """Proportional set size in bytes: pages shared by forked processes count once."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, AttributeError):
        return 0


def _tree_size(root: psutil.Process) -> int:
    try:
        return sum(_proportional(each) for each in [root, *root.children(recursive=True)])
    except psutil.Error:
        return 0


def measure(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    deadline: float = 1200,
    sample: bool = False,
) -> Usage:
    """Run a command to its end.

    Args:
        command: What to run.
        environment: Its environment.
        log: File for its standard error.
        deadline: Seconds after which it is killed.
        sample: Whether to sample memory (four times a second; costs some CPU beside it).
    """
    peak = 0
    started = time.monotonic()
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, env=dict(environment), stdout=subprocess.PIPE, stderr=errors
        )
    killer = threading.Timer(deadline, process.kill)
    killer.start()
    running = True

    def watch() -> None:
        nonlocal peak
        root = psutil.Process(process.pid)
        while running:
            peak = max(peak, _tree_size(root))
            time.sleep(0.25)

    watcher = threading.Thread(target=watch, daemon=True)
    if sample:
        watcher.start()
    assert process.stdout is not None
    output = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    running = False
    killer.cancel()
    return Usage(
        wall=time.monotonic() - started,
        cpu=used.ru_utime + used.ru_stime,
        peak_mib=peak / 2**20,
        code=os.waitstatus_to_exitcode(status),
        output=output,
    )


def fedrisk(*arguments: str) -> list[str]:
    """The command line of fedrisk in this environment."""
    return [sys.executable, "-m", "tasks.cli", *arguments]
