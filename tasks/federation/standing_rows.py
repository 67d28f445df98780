"""What a standing SuperNode knows of a run: only what its own hospital has left in its own bucket.

The step ``join`` leaves a configuration there: which version of which table the run may use. The
server says no more than the run's id. Rows are read for the first message of a run and kept for the
next, because each message is answered by a new process: below the SuperNode's own folder, which no
other user may enter and no other hospital's SuperNode shares, until the SuperNode ends. One that
was killed has them deleted when it is started again. Whether the hospital has joined anew is asked
when a run begins, which may be again, and once its time is over.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import DataError, NotApproved, NotJoined
from tasks.federation.hospital import (
    Hospital,
    HospitalConfig,
    TrainingRows,
    check_approved,
    guarded,
    read_training_rows,
)
from tasks.federation.messages import Wire
from tasks.manifest import RUN_PATTERN, write_atomically
from tasks.objects import get
from tasks.settings import Settings
from tasks.store import lake_store

STANDING = "standing"
"""The node's configuration where there is no file for one run."""
OWN = "OWN_HOSPITAL"
"""Environment variable with the hospital that a SuperNode and its ClientApps work for."""
CONFIG, REFUSED = "hospital.json", "refused.json"
"""What a hospital's step ``join`` leaves: that the run may use a table, or why it may not."""
ROWS = "rows.npz"
BEGINS = "statistics"
"""The question with which a run begins, and one that is started anew with other tables."""
KEPT_RUNS = 2
"""Runs whose rows are kept: one that trains, and one that starts."""


def own_hospital() -> str:
    """The hospital that this process works for.

    Raises:
        DataError: It was not said.
    """
    name = os.environ.get(OWN, "")
    if not name:
        raise DataError("this SuperNode was not told its hospital (--hospital).")
    return name


def config_of(settings: Settings, run: str, hospital: str) -> HospitalConfig:
    """Read what the hospital has left for a run.

    Args:
        settings: Where the hospital's lake is, and which studies it has approved.
        run: The run's id.
        hospital: The hospital.

    Raises:
        NotJoined: It has left nothing: its step ``join`` has not run, or not ended.
        NotApproved: Its step ``join`` has refused the run.
        DataError: What it has left says not how long the run may use it.
    """
    base = f"runs/{run}/files/join.{hospital}"
    key = f"{base}/{CONFIG}"
    content = get(lake_store(settings, hospital), key)
    if content is None:
        refusal = get(lake_store(settings, hospital), f"{base}/{REFUSED}")
        if refusal is not None:
            raise NotApproved(str(json.loads(refusal)["reason"]))
        raise NotJoined(
            f"hospital {hospital} has not joined run {run}: its bucket holds no {key}. Run the "
            "step join of this hospital first."
        )
    config = HospitalConfig.model_validate_json(content)
    if config.ends is None:
        raise DataError(
            f"hospital {hospital} has joined run {run} for ever, as an earlier fedrisk did. Start "
            "a new run."
        )
    # What this SuperNode's own file says counts, not a path on the machine of the step.
    return config.model_copy(update={"approved": settings.approved})


def answer_of_run(run: str, question: str, wire: Mapping[str, Any]) -> Wire:
    """Answer a question of a run in a process that knows nothing of it yet.

    Args:
        run: The run's id, as the server says.
        question: ``statistics``, ``train`` or ``close``.
        wire: The question's fields.
    """

    def work() -> Wire:
        settings, hospital = Settings.from_environment(), own_hospital()
        folder = _folder(settings, hospital, run)
        kept = _kept(folder, hospital, run)
        if kept is not None and question != BEGINS and not _has_ended(kept):
            config = kept
        else:
            config = config_of(settings, run, hospital)
        if kept is not None and _of_the_same_rows(kept, config):
            check_approved(config)
            rows = _load(folder / ROWS)
        else:
            # First what says that rows are there: until they are read anew, none are.
            (folder / CONFIG).unlink(missing_ok=True)
            rows = read_training_rows(config)
            _save(folder / ROWS, rows)
        if config != kept:
            write_atomically(folder / CONFIG, config.model_dump_json().encode())
            _forget_old(folder)
        return Hospital(config, rows).answer(question, wire)

    return guarded(work)


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
