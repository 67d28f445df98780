"""Encoding of messages: typed fields, arrays as bytes, with checks on the way in.

Each message is one record whose arrays are bytes, for Flower makes an HTTP call of every array.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError

Wire = dict[str, Any]
"""Fields of a Flower ``ConfigRecord``: int, float, str, bytes."""
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def size_of(wire: Mapping[str, Any]) -> int:
    """Payload of a message in bytes: its arrays, 8 a number, and its texts."""
    return sum(len(v) if isinstance(v, bytes | str) else 8 for v in wire.values())


def digest_of(wire: Mapping[str, Any]) -> str:
    """SHA-256 of a message, whatever the order of its fields."""
    plain = {key: value for key, value in wire.items() if not isinstance(value, bytes)}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode())
    for key in sorted(set(wire) - set(plain)):
        digest.update(f"{key}:{len(wire[key])}:".encode() + wire[key])
    return digest.hexdigest()


def packed(array: NDArray[Any], dtype: type) -> bytes:
    """An array's bytes."""
    return np.ascontiguousarray(array, dtype=dtype).tobytes()


def unpacked(wire: Mapping[str, Any], name: str, dtype: type, count: int) -> NDArray[Any]:
    """Read what ``packed`` made.

    Raises:
        DataError: It is not there, of another length, or not finite.
    """
    content = wire.get(name)
    wanted = count * np.dtype(dtype).itemsize
    if not isinstance(content, bytes) or len(content) != wanted:
        got = f"{len(content)} bytes" if isinstance(content, bytes) else type(content).__name__
        raise DataError(f"field {name} must be {count} numbers in {wanted} bytes, not {got}.")
    array: NDArray[Any] = np.frombuffer(content, dtype=dtype)
    if not np.isfinite(array).all():
        raise DataError(f"field {name} holds numbers that are not finite.")
    return array


def number(wire: Mapping[str, Any], name: str) -> float:
    """Read a finite number, or raise ``DataError``."""
    value = wire.get(name)
    if not isinstance(value, int | float) or not np.isfinite(value):
        raise DataError(f"field {name} must be a finite number.")
    return float(value)


def whole(wire: Mapping[str, Any], name: str) -> int:
    """Read a whole number of 0 or more, or raise ``DataError``."""
    value = wire.get(name)
    if not isinstance(value, int) or value < 0:
        raise DataError(f"field {name} must be a whole number of 0 or more.")
    return value
