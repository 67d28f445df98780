"""The server's state after a round, in one file that is written atomically.

It lies in the run's folder, so that a rerun of the step with the same run id goes on at the next
round. All randomness comes of (seed, round, hospital), so no generator's state is needed, and the
resumed run gives the bytes that an unbroken one would have given. It is kept before the next
question is asked, in the store too, so that a server that resumes asks the very same question: a
hospital answers no other.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import DataError, FederationError
from tasks.federation.server.selection import HospitalHistory
from tasks.federation.server.state import ServerState
from tasks.federation.update.stage import State
from tasks.files import write_atomically
from tasks.model.scaling import Scaler

ARRAYS = ("model", "best_model", "scaler", "strategy", "history")
"""Fields of ``ServerState`` that are no plain values."""
STORED_POLL = 0.02
STORE_AWAY = 300.0
"""Seconds for which the store may be away while a checkpoint waits to be put there."""


def save(path: Path, state: ServerState, fingerprint: str) -> None:
    """Write a checkpoint.

    Args:
        path: The file.
        state: What to keep.
        fingerprint: Of the study and hospitals that it belongs to.
    """
    about = {name: value for name, value in vars(state).items() if name not in ARRAYS}
    about |= {"history": vars(state.history), "fingerprint": fingerprint}
    arrays = {f"strategy/{name}": array for name, array in state.strategy.items()}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
        model=state.model,
        best_model=state.best_model,
        mean=state.scaler.mean,
        std=state.scaler.std,
        **arrays,  # type: ignore[arg-type]
    )
    write_atomically(path, buffer.getvalue())


def wait_until_stored(path: Path, stored: Path) -> None:
    """Wait until a checkpoint is in the store; the process with the store's key puts it there.

    Args:
        path: The checkpoint.
        stored: File with the modification time, in nanoseconds, of the newest one in the store.

    Raises:
        FederationError: It was not put there in time.
    """
    wanted, end = path.stat().st_mtime_ns, time.monotonic() + STORE_AWAY
    while not stored.exists() or int(stored.read_bytes() or b"0") < wanted:
        if time.monotonic() > end:
            raise FederationError(
                f"the checkpoint was not put into the store within {STORE_AWAY:g} s. Run the step "
                "again when the store is back: it goes on."
            )
        time.sleep(STORED_POLL)


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


def load(path: Path, fingerprint: str) -> ServerState | None:
    """Read a checkpoint, or return None where there is none.

    Raises:
        DataError: It belongs to another study or other hospitals, or is damaged, or an earlier
            fedrisk has left it.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays.pop("about").tobytes())
        own = about.pop("fingerprint") == fingerprint
        found = _state(about, arrays) if own else None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: the checkpoint cannot be read ({type(error).__name__}). Use another run id."
        ) from error
    if found is None:
        raise DataError(
            f"{path}: the checkpoint is of another study or other tables than this run's. Use "
            "another run id."
        )
    return found


def _state(about: dict[str, Any], arrays: State) -> ServerState:
    about["losses"] = [{n: tuple(pair) for n, pair in each.items()} for each in about["losses"]]
    about["result"] = tuple(about["result"]) if about["result"] else None
    return ServerState(
        **{**about, "history": HospitalHistory(**about["history"])},
        model=arrays["model"],
        best_model=arrays["best_model"],
        scaler=Scaler(arrays["mean"], arrays["std"]),
        strategy={
            name.removeprefix("strategy/"): array
            for name, array in arrays.items()
            if name.startswith("strategy/")
        },
    )
