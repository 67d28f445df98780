"""Something that takes minutes to make, made once by all pytest processes of one CI run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = "CI_SHARED"
"""Variable that names the folder which the pytest processes of one CI run have in common."""


def made_once(
    name: str,
    make: Callable[[Path], object],
    tmp_path_factory: pytest.TempPathFactory,
    deadline: float = 1800.0,
) -> Path:
    """Return a folder that one of the processes has filled; the others wait for it.

    Args:
        name: What it is.
        make: Fills the folder, which is new. If it raises, the next process makes it again.
        tmp_path_factory: For the folder where this process has none in common with others.
        deadline: Seconds that another process may take to make it.

    Raises:
        TimeoutError: It took longer.
    """
    common = os.environ.get(SHARED)
    root = Path(common) if common else tmp_path_factory.mktemp("made-once")
    root.mkdir(parents=True, exist_ok=True)
    folder, done = root / name, root / f"{name}.done"
    end = time.monotonic() + deadline
    with (root / f"{name}.lock").open("w") as lock:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > end:
                raise TimeoutError(f"another process makes {name} for more than {deadline:g} s")
            time.sleep(0.5)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
