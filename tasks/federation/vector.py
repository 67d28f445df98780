"""The summable vector of an answer: named segments of fixed length in one float64 array.

Everything that the server only needs summed over hospitals lies in it, so that a stage of the
update pipeline (``update/``) treats all of it alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tasks.errors import DataError
from tasks.federation.wire import Doubles, Wire, packed, unpacked


class Segment(NamedTuple):
    """A part of the vector.

    Attributes:
        length: Numbers.
        form: How it travels where no stage says otherwise: ``float64``; ``float32`` for what is
            of that precision; ``counts``, of which only those above 0 travel.
    """

    length: int
    form: Literal["float64", "float32", "counts"] = "float64"


Layout = dict[str, Segment]


@dataclass(frozen=True)
class Vector:
    """Named sums.

    Attributes:
        layout: The segments in their order.
        array: All of them, shape (n,).
    """

    layout: Layout
    array: Doubles

    @classmethod
    def of(cls, layout: Layout, **values: ArrayLike) -> Vector:
        """Put segments together; one that is not given is 0.

        Values are rounded here to the precision in which they travel, so that what a hospital
        remembers of its answer is what the server has added up.

        Args:
            layout: The segments.
            values: By the segment's name.
        """
        parts = []
        for name, segment in layout.items():
            given = np.asarray(values.pop(name, np.zeros(segment.length)), dtype=np.float64).ravel()
            if given.shape != (segment.length,):
                raise ValueError(f"segment {name} has {segment.length} numbers, not {given.shape}")
            parts.append(given.astype(np.float32) if segment.form == "float32" else given)
        if values:
            raise ValueError(f"no segments {sorted(values)} in {list(layout)}")
        return cls(layout, np.concatenate(parts).astype(np.float64))

    def __getitem__(self, name: str) -> Doubles:
        start = 0
        for other, segment in self.layout.items():
            if other == name:
                return self.array[start : start + segment.length]
            start += segment.length
        raise KeyError(name)

    def number(self, name: str) -> float:
        """A segment of length 1."""
        return float(self[name][0])

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.layout, self.array + other.array)

    def scaled(self, factors: Mapping[str, float]) -> Vector:
        """The vector with some segments multiplied.

        Args:
            factors: By the segment's name.
        """
        found = Vector(self.layout, self.array.copy())
        for name, factor in factors.items():
            found[name][:] *= factor
        return found

    def encode(self) -> Wire:
        """The vector as it travels: one field a segment."""
        wire: Wire = {}
        for name, segment in self.layout.items():
            values = self[name]
            if segment.form == "counts":
                held = np.flatnonzero(values)
                wire[name] = packed(np.stack([held, values[held]], axis=1), np.int32)
            else:
                wire[name] = packed(values, np.dtype(segment.form).type)
        return wire

    @classmethod
    def decode(cls, wire: Mapping[str, Any], layout: Layout) -> Vector:
        """Read and check what ``encode`` made.

        Raises:
            DataError: A segment is absent, of another length, or not finite, or there are others.
        """
        if set(wire) != set(layout):
            raise DataError(f"the fields are {sorted(wire)}, expected {sorted(layout)}.")
        parts = []
        for name, segment in layout.items():
            if segment.form == "counts":
                parts.append(_counts(wire, name, segment.length))
            else:
                parts.append(unpacked(wire, name, np.dtype(segment.form).type, segment.length))
        return cls(layout, np.concatenate(parts).astype(np.float64))


def _counts(wire: Mapping[str, Any], name: str, length: int) -> Doubles:
    content = wire[name]
    if not isinstance(content, bytes) or len(content) % 8:
        raise DataError(f"field {name} must be pairs of a place and a count in eight bytes.")
    places, counts = np.frombuffer(content, dtype=np.int32).reshape(-1, 2).T
    sound = ((places >= 0) & (places < length)).all() and (counts > 0).all()
    if not sound or len(np.unique(places)) != len(places):
        raise DataError(f"field {name} must count above 0 at each of {length} places at most once.")
    found = np.zeros(length)
    found[places] = counts
    return found
