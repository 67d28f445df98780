"""The federation after a round, in one file that is written atomically.

It lies in the run's folder, so that a rerun of the step with the same run id goes on at the next
round. All randomness comes of (seed, round, hospital), so no generator's state is needed, and the
resumed run gives the bytes that an unbroken one would have given.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.federation.server.selection import Seen
from tasks.files import write_atomically
from tasks.model.scaling import Scaler
from tasks.run.manifest import TableVersion
from tasks.run.step import Context


@dataclass
class Progress:
    """All that the server knows after a round.

    Attributes:
        round: Rounds done.
        model: Parameters after that round, shape (p,).
        scaler: The federation's standardisation.
        best_model: Parameters with the lowest validation loss so far.
        best_round: After how many rounds they were reached.
        best_loss: That loss; infinite before the first evaluation.
        losses: Validation loss of the model that each round started from.
        seen: What is known of the hospitals.
        validation_rows: Validation rows by hospital.
        strategy: The strategy's arrays (control variates, moments).
        bytes_up: Payload from the hospitals so far.
        bytes_down: Payload to the hospitals so far.
        participation: Rounds in which an update was used, by hospital.
        lost: Rounds in which a selected hospital's update was not used, by hospital.
    """

    round: int
    model: NDArray[np.float32]
    scaler: Scaler
    best_model: NDArray[np.float32]
    best_round: int = 0
    best_loss: float = math.inf
    losses: list[float] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    validation_rows: dict[str, int] = field(default_factory=dict)
    strategy: dict[str, NDArray[Any]] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    participation: dict[str, int] = field(default_factory=dict)
    lost: dict[str, list[int]] = field(default_factory=dict)


_PLAIN = (
    "round",
    "best_round",
    "best_loss",
    "losses",
    "validation_rows",
    "bytes_up",
    "bytes_down",
    "participation",
    "lost",
)


def save(path: Path, progress: Progress, fingerprint: str) -> None:
    """Write a checkpoint.

    Args:
        path: The file.
        progress: What to keep.
        fingerprint: Of the study and hospitals that it belongs to.
    """
    about = {name: getattr(progress, name) for name in _PLAIN}
    about |= {"seen": vars(progress.seen), "fingerprint": fingerprint}
    arrays = {f"strategy/{name}": array for name, array in progress.strategy.items()}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
        model=progress.model,
        best_model=progress.best_model,
        mean=progress.scaler.mean,
        std=progress.scaler.std,
        **arrays,  # type: ignore[arg-type]
    )
    write_atomically(path, buffer.getvalue())


def fingerprint_of(content: bytes) -> str:
    """What a checkpoint belongs to; empty where it cannot be read.

    Args:
        content: The file's.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return str(json.loads(file["about"].tobytes())["fingerprint"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return ""


def load(path: Path, fingerprint: str) -> Progress | None:
    """Read a checkpoint, or return None where there is none.

    Raises:
        DataError: It belongs to another study or other hospitals, or is damaged.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays.pop("about").tobytes())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: the checkpoint cannot be read ({type(error).__name__}). Delete it to start "
            "from the first round."
        ) from error
    if about["fingerprint"] != fingerprint:
        raise DataError(
            f"{path}: the checkpoint is of another study or other tables than this run's. Delete "
            "it to start from the first round, or use another run id."
        )
    return Progress(
        **{name: about[name] for name in _PLAIN},
        seen=Seen(**about["seen"]),
        model=arrays["model"],
        best_model=arrays["best_model"],
        scaler=Scaler(arrays["mean"], arrays["std"]),
        strategy={
            name.removeprefix("strategy/"): array
            for name, array in arrays.items()
            if name.startswith("strategy/")
        },
    )


def fingerprint(context: Context, tables: dict[str, TableVersion]) -> str:
    """What a checkpoint belongs to: the study and the versions of the hospitals' tables."""
    text = json.dumps([context.study.digest(), {n: t.version for n, t in tables.items()}])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
