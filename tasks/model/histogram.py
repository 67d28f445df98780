"""Scores as counts: what leaves a hospital so that all hospitals' metrics can be computed.

A fixed fine grid on the logit axis, counted by label. Before it leaves, neighbouring cells are
merged until no group has fewer patients than the study allows; sums over hospitals then give
AUROC, calibration and the rest without a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import DataError
from tasks.model.counted import Calibration, Counted, Metric
from tasks.model.forward import sigmoid

BINS = 1024
LIMIT = 12.0
"""The grid covers log-odds from -LIMIT to LIMIT (probabilities of 6e-6 and 1 - 6e-6)."""
WIDTH = 2 * LIMIT / BINS
CENTRES: NDArray[np.float64] = (np.arange(BINS, dtype=np.float64) + 0.5) * WIDTH - LIMIT

WAYS = 24
"""Ways to place the borders of groups that are tried; more help little and take a ms each."""

Counts = NDArray[np.int64]


class Confusion(BaseModel):
    """Patients by label and decision; None where the count is too small to leave a hospital."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tn: int | None
    fp: int | None
    fn: int | None
    tp: int | None


class SparseHistogram(BaseModel):
    """A histogram for JSON: the cells that hold patients."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bins: list[int] = Field(default_factory=list)
    negatives: list[int] = Field(default_factory=list)
    positives: list[int] = Field(default_factory=list)

    def dense(self) -> ScoreHistogram:
        """The histogram itself.

        Raises:
            DataError: The lists do not fit one another or the grid.
        """
        table = [self.bins, self.negatives, self.positives]
        if len({len(row) for row in table}) != 1:
            raise DataError("a sparse histogram's lists must be of one length.")
        return ScoreHistogram.from_array(np.array(table, dtype=np.int32).T.reshape(-1, 3))


@dataclass(frozen=True)
class ScoreHistogram:
    """Counts of patients by score and label.

    Attributes:
        counts: int64 of shape (2, BINS): row 0 the negatives, row 1 the positives.
    """

    counts: Counts

    def __post_init__(self) -> None:
        if self.counts.shape != (2, BINS) or bool((self.counts < 0).any()):
            raise DataError(
                f"a score histogram is counts of shape (2, {BINS}), not {self.counts.shape}."
            )

    @classmethod
    def of(
        cls, y: NDArray[np.float32], logit: NDArray[np.float64], min_count: int
    ) -> ScoreHistogram:
        """Count a hospital's rows, so that the counts may leave it.

        Cells are merged with their neighbours, in order of score, until each group has
        ``min_count`` patients, and a group stands at the cell of its median patient. Of several
        ways to place the borders, the one that distorts AUROC (inside the hospital, and against
        patients of others) and the Brier score least is taken. Fewer than ``min_count`` rows in
        all leave nothing.

        Args:
            y: Labels, shape (n,).
            logit: Scores, shape (n,).
            min_count: The fewest patients of a group; 1 merges nothing.
        """
        place = np.clip(np.floor((logit + LIMIT) / WIDTH), 0, BINS - 1).astype(np.int64)
        counts = np.zeros((2, BINS), dtype=np.int64)
        np.add.at(counts, ((y > 0.5).astype(np.int64), place), 1)
        if min_count <= 1:
            return cls(counts)
        if len(y) < min_count:
            return cls.empty()
        exact = Counted.of(y, logit)
        auroc, brier = exact.value(Metric.AUROC), exact.value(Metric.BRIER) or 0.0
        ways = [cls(_merged(counts, min_count, way)) for way in range(WAYS)]
        if auroc is None:
            return ways[0]
        ranks, total = _ranks(counts), counts.sum(axis=1)

        def distortion(way: ScoreHistogram) -> float:
            inside = abs((way.auroc() or 0.0) - auroc)
            across = _moved(way.counts - counts, ranks, total)
            return inside + across + abs((way.brier() or 0.0) - brier)

        return min(ways, key=distortion)

    @classmethod
    def empty(cls) -> ScoreHistogram:
        """No patients: the start of a sum."""
        return cls(np.zeros((2, BINS), dtype=np.int64))

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        return ScoreHistogram(self.counts + other.counts)

    def shifted(self, by: float) -> ScoreHistogram:
        """The histogram of the same patients with a number added to each log-odds.

        Args:
            by: The number, to the nearest cell's width; the grid's last cells take what would
                leave it.
        """
        place = np.clip(np.arange(BINS) + round(by / WIDTH), 0, BINS - 1)
        moved = [np.bincount(place, weights=own, minlength=BINS) for own in self.counts]
        return ScoreHistogram(np.array(moved, dtype=np.int64))

    @property
    def rows(self) -> int:
        """Patients in all."""
        return int(self.counts.sum())

    @property
    def positives(self) -> int:
        """Patients of label 1."""
        return int(self.counts[1].sum())

    def counted(self) -> Counted:
        """The cells that hold patients, as counted scores."""
        held = np.flatnonzero(self.counts.sum(axis=0))
        negatives, positives = self.counts[:, held].astype(np.float64)
        return Counted(CENTRES[held], negatives, positives)

    def auroc(self) -> float | None:
        """Area under the ROC curve, ties as half; None where a class is absent."""
        return self.counted().value(Metric.AUROC)

    def auprc(self) -> float | None:
        """Average precision; None without positives."""
        return self.counted().value(Metric.AUPRC)

    def brier(self) -> float | None:
        """Mean squared error of the risk; None without rows."""
        return self.counted().value(Metric.BRIER)

    def loss(self) -> float | None:
        """Mean cross entropy in nats; None without rows."""
        return self.counted().value(Metric.LOSS)

    def calibration(self) -> Calibration | None:
        """Slope, intercept, mean predicted and observed risk; None without rows."""
        return self.counted().calibration()

    def confusion(self, threshold: float) -> Confusion:
        """Patients by label and decision.

        Args:
            threshold: Probability from which a patient counts as positive; cells are on the side
                of their centre.
        """
        called = sigmoid(CENTRES) >= threshold
        negatives, positives = self.counts
        return Confusion(
            tn=int(negatives[~called].sum()),
            fp=int(negatives[called].sum()),
            fn=int(positives[~called].sum()),
            tp=int(positives[called].sum()),
        )

    def roc_points(self) -> list[tuple[float, float]]:
        """False and true positive rate from (0, 0) to (1, 1); empty where a class is absent."""
        negatives, positives = self._descending()
        if not negatives.sum() or not positives.sum():
            return []
        x = np.cumsum(negatives) / negatives.sum()
        y = np.cumsum(positives) / positives.sum()
        return [(0.0, 0.0), *((float(a), float(b)) for a, b in zip(x, y, strict=True))]

    def pr_points(self) -> list[tuple[float, float]]:
        """Recall and precision, from the highest score down; empty without positives."""
        negatives, positives = self._descending()
        if not positives.sum():
            return []
        hits = np.cumsum(positives)
        recall, precision = hits / hits[-1], hits / (hits + np.cumsum(negatives))
        return [(float(a), float(b)) for a, b in zip(recall, precision, strict=True)]

    def calibration_points(self, groups: int = 10) -> list[tuple[float, float, int]]:
        """Mean predicted risk, observed share and patients of groups of nearly equal size.

        Args:
            groups: At most so many, in order of risk; a cell is never divided.
        """
        counted = self.counted()
        total = counted.negatives + counted.positives
        if not len(total):
            return []
        middle = (np.cumsum(total) - total / 2) / total.sum()
        group = np.minimum((middle * groups).astype(np.int64), groups - 1)
        risk = sigmoid(counted.logit)
        points = []
        for number in np.unique(group):
            here = group == number
            rows = float(total[here].sum())
            predicted = float((risk * total)[here].sum() / rows)
            points.append((predicted, float(counted.positives[here].sum() / rows), int(rows)))
        return points

    def _descending(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        counted = self.counted()
        return counted.negatives[::-1], counted.positives[::-1]

    def to_array(self) -> NDArray[np.int32]:
        """The cells that hold patients, shape (k, 3): cell, negatives, positives."""
        held = np.flatnonzero(self.counts.sum(axis=0))
        return np.stack([held, *self.counts[:, held]], axis=1).astype(np.int32)

    @classmethod
    def from_array(cls, array: NDArray[np.int32]) -> ScoreHistogram:
        """Read what ``to_array`` made, flattened or not.

        Raises:
            DataError: The array is not of that form.
        """
        if array.size % 3 or (array.size and array.min() < 0):
            raise DataError(
                f"a score histogram must be triples of cell, negatives and positives, not an "
                f"array of shape {array.shape}."
            )
        table = array.reshape(-1, 3).astype(np.int64)
        cells = table[:, 0]
        if len(np.unique(cells)) != len(cells) or (cells >= BINS).any():
            raise DataError(f"a score histogram must name each of its {BINS} cells at most once.")
        counts = np.zeros((2, BINS), dtype=np.int64)
        counts[:, cells] = table[:, 1:].T
        return cls(counts)

    def sparse(self) -> SparseHistogram:
        """The histogram for JSON."""
        cells, negatives, positives = self.to_array().T.tolist()
        return SparseHistogram(bins=cells, negatives=negatives, positives=positives)


def summed(parts: Iterable[ScoreHistogram]) -> ScoreHistogram:
    """The histogram of all hospitals together."""
    return sum(parts, ScoreHistogram.empty())


def _merged(counts: Counts, min_count: int, way: int) -> Counts:
    """Merge cells into groups of ``min_count`` patients or a few more, as ``way`` says.

    The first ways differ in the first border alone, the others in all.
    """
    held = np.flatnonzero(counts.sum(axis=0))
    inside = counts[:, held]
    totals = inside.sum(axis=0)
    more = np.zeros(len(held) + 1, dtype=np.int64)
    if way >= min_count:
        more = np.random.default_rng(way).integers(0, 3, len(held) + 1)
    more[0] = way % min_count
    wanted = (min_count + more).tolist()
    starts, size = [0], 0
    for place, total in enumerate(totals.tolist()):
        if size >= wanted[len(starts) - 1]:
            starts.append(place)
            size = 0
        size += total
    if size < min_count and len(starts) > 1:
        starts.pop()
    sums = np.add.reduceat(inside, starts, axis=1)
    reached = np.cumsum(totals)
    before = reached[starts] - totals[starts]
    median = np.searchsorted(reached, before + sums.sum(axis=0) / 2)
    merged = np.zeros_like(counts)
    merged[:, held[median]] = sums
    return merged


def _ranks(counts: Counts) -> NDArray[np.float64]:
    """Smooth share of the other label's patients below each cell, shape (2, BINS).

    A logistic distribution of the same mean and spread stands for the patients of all hospitals.
    """
    found = []
    for other in (counts[1], counts[0]):
        mean = float(other @ CENTRES / other.sum())
        spread = max(float(np.sqrt(other @ (CENTRES - mean) ** 2 / other.sum())), 0.5)
        found.append(sigmoid((CENTRES - mean) * (np.pi / np.sqrt(3.0)) / spread))
    return np.array(found)


def _moved(change: Counts, ranks: NDArray[np.float64], total: Counts) -> float:
    """How much a merge would change AUROC against those patients."""
    rows = np.maximum(total, 1)
    negative, positive = (change * ranks).sum(axis=1) / rows
    return abs(float(positive - negative))
