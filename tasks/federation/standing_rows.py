"""What a standing SuperNode knows of a run: only what its own hospital has left in its own bucket.

The step ``join`` leaves a configuration there: which version of which table the run may use. The
server says no more than the run's id. Rows are read for the first message of a run and kept on the
hospital's own disk for the next, because each message is answered by a new process.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import DataError, NotJoined
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
    """
    key = f"runs/{run}/files/join.{hospital}/hospital.json"
    content = get(lake_store(settings, hospital), key)
    if content is None:
        raise NotJoined(
            f"hospital {hospital} has not joined run {run}: its bucket holds no {key}. Run the "
            "step join of this hospital first."
        )
    config = HospitalConfig.model_validate_json(content)
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
        folder = _folder(run)
        kept = folder / "hospital.json"
        if kept.exists():
            config = HospitalConfig.model_validate_json(kept.read_bytes())
            check_approved(config)
            rows = _load(folder / "rows.npz")
        else:
            config = config_of(settings, run, hospital)
            rows = read_training_rows(config)
            _save(folder / "rows.npz", rows)
            write_atomically(kept, config.model_dump_json().encode())
            _forget_old(folder)
        return Hospital(config, rows).answer(question, wire)

    return guarded(work)


def _folder(run: str) -> Path:
    if not RUN_PATTERN.fullmatch(run) or ".." in run:
        raise DataError("the server named no run. Expected the id of a fedrisk run.")
    root = Path(tempfile.gettempdir()) / f"fedrisk-rows-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    folder = root / run
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


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
    runs = sorted(folder.parent.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
    for old in runs[KEPT_RUNS:]:
        for file in old.iterdir():
            with contextlib.suppress(OSError):
                file.unlink()
        with contextlib.suppress(OSError):
            old.rmdir()
