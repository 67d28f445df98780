"""Federated standardisation: one mean and one spread for all hospitals, from sums.

Each hospital sends three sums a feature; their totals give the same scaling as pooled rows would.
Scaling by each hospital's own mean and spread would hide from the model how hospitals differ: it
costs .03 AUROC on the stroke data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.study import Feature

CHUNK = 1 << 17
"""Rows that are worked on at a time: what lies between takes a multiple of their memory."""
SMALLEST_SPREAD = 0.2
"""Lowest divisor of a 0/1 feature. A category of 1 patient in 5,000 has a standard deviation of
.014, so that dividing by it would make an input of 70; .2 is that of a share of 4 %."""


@dataclass(frozen=True)
class Moments:
    """Sums over training rows, which add up over hospitals.

    Float64 keeps a variance exact to 1e-6 as long as a mean is below 10,000 standard deviations.

    Attributes:
        count: Rows in which the feature is known, shape (d,).
        total: Sum of the known values, shape (d,).
        square: Sum of their squares, shape (d,).
    """

    count: NDArray[np.float64]
    total: NDArray[np.float64]
    square: NDArray[np.float64]

    @classmethod
    def of(cls, x: NDArray[np.float64]) -> Moments:
        """Sum over rows.

        Args:
            x: Features of shape (n, d), NaN where missing.
        """
        found = cls(*np.zeros((3, x.shape[1])))
        for some in chunks(x):
            known = np.isfinite(x[some])
            filled = np.where(known, x[some], 0.0)
            sums = known.sum(axis=0).astype(np.float64), filled.sum(axis=0), (filled**2).sum(axis=0)
            found = found + cls(*sums)
        return found

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.total + other.total, self.square + other.square
        )

    def to_array(self) -> NDArray[np.float64]:
        """The sums as one array of shape (3, d): counts, totals, squares."""
        return np.stack([self.count, self.total, self.square])

    @classmethod
    def from_array(cls, array: NDArray[np.float64]) -> Moments:
        """Read what ``to_array`` made.

        Raises:
            DataError: The array is no (3, d) of finite sums.
        """
        array = np.asarray(array, dtype=np.float64)
        if array.ndim != 2 or array.shape[0] != 3 or not np.isfinite(array).all():
            raise DataError(f"moments must be a finite array of shape (3, d), not {array.shape}.")
        return cls(array[0], array[1], array[2])


@dataclass(frozen=True)
class Scaler:
    """Feature-wise ``(x - mean) / std``; a missing value becomes 0, which is the mean.

    Attributes:
        mean: Shape (d,).
        std: Shape (d,), above 0.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, moments: Moments, features: Sequence[Feature]) -> Scaler:
        """Derive the scaling from summed moments.

        A feature that is known nowhere or never varies is only centred.

        Args:
            moments: Sums over all hospitals' training rows.
            features: The study's features.

        Raises:
            DataError: The moments are not of these features.
        """
        if moments.count.shape != (len(features),):
            raise DataError(
                f"moments of {len(moments.count)} features, but the study has {len(features)}."
            )
        count = np.maximum(moments.count, 1.0)
        mean = moments.total / count
        variance = np.maximum(moments.square / count - mean**2, 0.0)
        # Below this, a variance is what rounding left over.
        variance[variance <= 1e-9 * mean**2] = 0.0
        std = np.sqrt(variance)
        numeric = np.array([feature.kind == "numeric" for feature in features], dtype=bool)
        std = np.where(numeric, std, np.maximum(std, SMALLEST_SPREAD))
        return cls(mean, np.where(std > 0, std, 1.0))

    def transform(self, x: NDArray[np.float64]) -> NDArray[np.float32]:
        """Scale rows.

        Args:
            x: Features of shape (n, d), NaN where missing.

        Returns:
            Shape (n, d), without NaN.
        """
        z = np.empty(x.shape, np.float32)
        for some in chunks(x):
            z[some] = np.nan_to_num((x[some] - self.mean) / self.std, nan=0.0)
        return z


def chunks(x: NDArray[np.floating]) -> Iterator[slice]:
    """Slices of at most ``CHUNK`` rows that make up all rows."""
    return (slice(start, start + CHUNK) for start in range(0, len(x), CHUNK))
