"""The profile of a hospital's training rows: small tables by label that may leave the hospital.

The edges come from the study's ranges alone and no group has fewer patients than the study's
``evaluation.min_count``, so that profiles of hospitals can be summed (the reference model) and none
tells of a single patient.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

BINS = 32
"""Bins of equal width over a number's range, before small ones are merged."""
OTHER = "other"
"""The group that small categories are merged into."""


class Group(BaseModel):
    """Patients with values in one interval, or with one category.

    Attributes:
        name: The category, ``other`` for merged ones, or the interval in words.
        low: Lower edge of the interval (of numbers), included.
        high: Upper edge, excluded but for the last.
        centre: Mean of the bins' middles, weighted by their patients (of numbers).
        categories: The categories in the group (of categories and flags).
        rows: Patients.
        positives: Patients with the outcome.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    low: float | None = None
    high: float | None = None
    centre: float | None = None
    categories: list[str] = Field(default_factory=list)
    rows: int = Field(ge=0)
    positives: int = Field(ge=0)


class ColumnProfile(BaseModel):
    """One column by label.

    Attributes:
        kind: ``number`` has intervals, in order; ``category`` has categories, flags among them.
        groups: Together all rows that have the value; empty if those are fewer than the least.
        missing: Rows that lack the value; None if there are fewer than the least.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["number", "category"]
    groups: list[Group]
    missing: Group | None = None


class Profile(BaseModel):
    """All columns of one hospital's training rows.

    Attributes:
        min_count: Least number of patients in a group.
        rows: Training rows.
        positives: Those with the outcome.
        columns: By the study's column.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_count: int
    rows: int
    positives: int
    columns: dict[str, ColumnProfile]


def merge_bins(
    counts: dict[int, tuple[int, int]], low: float, high: float, min_count: int
) -> list[Group]:
    """Merge neighbouring bins until each group has enough patients.

    Args:
        counts: Rows and positives by bin, 0 to ``BINS - 1``; empty bins may be left out.
        low: Lower end of the column's range.
        high: Upper end.
        min_count: Least number of patients in a group.

    Returns:
        Groups in order, from the first to the last edge; none if there are too few patients.
    """
    width = (high - low) / BINS
    groups: list[Group] = []
    start, rows, positives, weighted = 0, 0, 0, 0.0
    for index in range(BINS):
        in_bin, with_outcome = counts.get(index, (0, 0))
        rows += in_bin
        positives += with_outcome
        weighted += in_bin * (low + (index + 0.5) * width)
        if rows >= min_count:
            groups.append(_interval(low, width, start, index + 1, rows, positives, weighted))
            start, rows, positives, weighted = index + 1, 0, 0, 0.0
    if start < BINS and groups:
        last = groups.pop()
        first = round(((last.low or 0.0) - low) / width)
        weighted += last.rows * (last.centre or 0.0)
        groups.append(
            _interval(
                low, width, first, BINS, rows + last.rows, positives + last.positives, weighted
            )
        )
    return groups


def merge_categories(counts: dict[str, tuple[int, int]], min_count: int) -> list[Group]:
    """Merge categories of too few patients into ``other``.

    Args:
        counts: Rows and positives by category.
        min_count: Least number of patients in a group.

    Returns:
        Groups in the order of ``counts``, ``other`` last; none if there are too few patients.
    """
    large = {name: pair for name, pair in counts.items() if pair[0] >= min_count}
    small = {name: pair for name, pair in counts.items() if 0 < pair[0] < min_count}
    while small and large and sum(rows for rows, _ in small.values()) < min_count:
        least = min(large, key=lambda name: large[name][0])
        small[least] = large.pop(least)
    groups = [
        Group(name=name, categories=[name], rows=rows, positives=positives)
        for name, (rows, positives) in large.items()
    ]
    rest = sum(rows for rows, _ in small.values())
    if rest >= min_count:
        positives = sum(positives for _, positives in small.values())
        groups.append(Group(name=OTHER, categories=sorted(small), rows=rest, positives=positives))
    return groups


def _interval(
    low: float, width: float, start: int, end: int, rows: int, positives: int, weighted: float
) -> Group:
    lower, upper = low + start * width, low + end * width
    return Group(
        name=f"{lower:g} to {upper:g}",
        low=lower,
        high=upper,
        centre=weighted / rows,
        rows=rows,
        positives=positives,
    )
