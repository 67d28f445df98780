"""Rows of recent runs on a SuperNode's own disk, so that a restart need not read them again."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from tasks.errors import DataError
from tasks.federation.hospital.config import (
    CONFIG,
    HospitalConfig,
)
from tasks.federation.hospital.training_rows import TrainingRows
from tasks.files import write_atomically
from tasks.run.folder import RUN_PATTERN
from tasks.settings import Settings

ROWS = "rows.npz"


KEPT_RUNS = 2
"""Runs whose rows are kept: one that trains, and one that starts."""


def _kept(folder: Path, hospital: str, run: str) -> HospitalConfig | None:
    """By which configuration the kept rows were read; None where there are none."""
    path = folder / CONFIG
    if not path.exists():
        return None
    config = HospitalConfig.model_validate_json(path.read_bytes())
    if config.hospital != hospital:
        raise DataError(f"what is kept for run {run} is not hospital {hospital}'s.")
    return config


def _has_ended(config: HospitalConfig) -> bool:
    return config.ends is not None and datetime.now(UTC) > config.ends


def _of_the_same_rows(kept: HospitalConfig, config: HospitalConfig) -> bool:
    """Whether two configurations differ at most in who has approved what, and until when."""
    return kept == config.model_copy(update={"ends": kept.ends, "approved": kept.approved})


def forget_rows(settings: Settings, hospital: str) -> None:
    """Delete all rows that a SuperNode has kept.

    Args:
        settings: Where the SuperNode's own folder is.
        hospital: Whose SuperNode it is.
    """
    root = _root(settings, hospital)
    if root.is_symlink():
        root.unlink()
    shutil.rmtree(root, ignore_errors=True)


def _root(settings: Settings, hospital: str) -> Path:
    return settings.home / "federation" / hospital / "rows"


def _folder(settings: Settings, hospital: str, run: str) -> Path:
    if not RUN_PATTERN.fullmatch(run) or ".." in run:
        raise DataError("the server named no run. Expected the id of a fedrisk run.")
    root = _root(settings, hospital)
    root.parent.mkdir(parents=True, exist_ok=True)
    for folder in (root, root / run):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if not own or stat.S_IMODE(found.st_mode) & 0o077:
            raise DataError(
                f"the folder for run {run}'s rows is not this user's alone. Delete "
                f"<home>/federation/{hospital}/rows and start the SuperNode again."
            )
    return root / run


def _save(path: Path, rows: TrainingRows) -> None:
    content = io.BytesIO()
    np.savez(
        content, x=rows.x, y=rows.y, validation_x=rows.validation_x, validation_y=rows.validation_y
    )
    write_atomically(path, content.getvalue())


def _load(path: Path) -> TrainingRows:
    with np.load(path, allow_pickle=False) as found:
        return TrainingRows(found["x"], found["y"], found["validation_x"], found["validation_y"])


def _forget_old(folder: Path) -> None:
    """Delete the rows of all but the newest runs."""
    ages = {}
    for each in folder.parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another message's process was faster
            ages[each] = each.stat().st_mtime
    for old in sorted(ages, key=lambda each: ages[each], reverse=True)[KEPT_RUNS:]:
        # First what says that the rows are there.
        with contextlib.suppress(OSError):
            (old / CONFIG).unlink()
        shutil.rmtree(old, ignore_errors=True)
