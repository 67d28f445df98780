"""What a table's columns look like: counts by an engine, and what kind of column each may be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tasks.data.values import NUMBER, canonical_sql, literal, number_sql, trimmed_sql
from tasks.lake.engine.local import LocalEngine
from tasks.study.base import FLAGS, canonical, folded
from tasks.study.spelling import Spelling

Kind = Literal["number", "integer", "flag", "category", "date", "text", "constant", "empty"]
MARKERS = frozenset(
    {"na", "n/a", "#n/a", "nan", "null", "none", "nil", "missing", "unk", "not known", "not done"}
    | {"?", ".", "-", "--", "..", "nd", "tbd", "(blank)", "not available", "not recorded"}
)
"""Texts, folded, that mean "not known" in columns of any kind."""
CODES = frozenset({-1.0, -8.0, -9.0, -99.0, -999.0, -9999.0, 99.0, 999.0, 9999.0, 99999.0})
"""Numbers that stand for "not known" where they lie far from all others."""
CATEGORIES = 25
"""Distinct texts up to which a column is a category."""
CODED = 6
"""Distinct whole numbers up to which a column is a category of codes."""
OFTEN = 5
"""Rows from which a text in a column of numbers is a marker."""
SEEN = 200
"""Most frequent values of a column that are looked at."""
_DATE = r"^[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}([ T].*)?$"


@dataclass(frozen=True)
class Looks:
    """What is known of one column of one table.

    Attributes:
        name: Its name in the table.
        kind: What it may be.
        rows: Rows of the table.
        missing: Rows without a value.
        distinct: Different known values.
        low: Smallest number.
        high: Largest number.
        values: Known values of a flag or category, most frequent first.
        counts: Their rows.
        markers: Texts that stand for "not known".
        decimal: What stands before decimals.
        thousands: What stands between thousands.
        unique: Whether every row has a value of its own.
        worst: The largest share of missing values of any hospital.
    """

    name: str
    kind: Kind
    rows: int
    missing: int
    distinct: int
    low: float = math.nan
    high: float = math.nan
    values: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    markers: tuple[str, ...] = ()
    decimal: str = "."
    thousands: str = ""
    unique: bool = False
    worst: float = 0.0


@dataclass
class _Counted:
    rows: int
    empty: int
    distinct: int
    numbers: dict[tuple[str, str], tuple[int, float, float, int]] = field(default_factory=dict)
    next_to: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    dates: int = 0
    frequent: list[tuple[str, int]] = field(default_factory=list)


MARKS: tuple[tuple[str, str], ...] = ((".", ""), (".", ","), (",", ""), (",", "."))
"""Marks for decimals and thousands that are tried: of those that read as much the first counts, so
that ``1,234`` in all rows is a thousand."""
DECIMAL_COMMAS = (MARKS[0], MARKS[2], MARKS[3], MARKS[1])
"""The same where semicolons split the rows: there ``1,234`` is a number below two."""


def looks_of(
    engine: LocalEngine, names: Sequence[str], marks: Sequence[tuple[str, str]]
) -> list[Looks]:
    """Look at every column of the table ``drafted``, whose columns are ``c0``, ``c1``, ....

    Args:
        engine: Has the table.
        names: The columns' names.
        marks: How numbers may be written, the plain way first.
    """
    total = int(engine.rows("SELECT count(*) AS n FROM drafted")[0]["n"])
    found = []
    for place, name in enumerate(names):
        counted = _count(engine, f"c{place}", total, marks)
        unique = counted.distinct == total
        found.append(replace(_judged(name, counted), unique=unique))
    return found


def _count(
    engine: LocalEngine, column: str, total: int, tried: Sequence[tuple[str, str]]
) -> _Counted:
    engine.view("trimmed", f"SELECT {trimmed_sql(column)} AS t FROM drafted")
    # With points between thousands 1.000 is no 1.
    text = "t" if len(tried) > 1 else canonical_sql("t")
    engine.view("plain", f"SELECT {text} AS v FROM trimmed")
    engine.view("looked_at", "SELECT v, count(*) AS n FROM plain GROUP BY v")
    engine.view("known", "SELECT v, n FROM looked_at WHERE v IS NOT NULL AND v != ''")
    with engine.keep("texts", "SELECT v, n FROM known"):
        row = engine.rows("SELECT sum(n) AS known, count(*) AS distinct_ FROM texts")[0]
        found = _Counted(total, total - int(row["known"] or 0), int(row["distinct_"]))
        frequent = engine.rows(f"SELECT v, n FROM texts ORDER BY n DESC, v LIMIT {SEEN}")
        found.frequent = [(str(each["v"]), int(each["n"])) for each in frequent]
        known = total - found.empty
        for marks in tried:
            number = number_sql("v", Spelling({}, False, *marks))
            numeric = f"SELECT try_cast({number} AS double) AS x, n FROM texts WHERE {number} "
            numeric += f"RLIKE {literal(NUMBER)}"
            row = engine.rows(
                "SELECT sum(n) AS n, min(x) AS low, max(x) AS high, "
                f"sum(if(x = floor(x), n, 0)) AS whole FROM ({numeric}) AS numbers"
            )[0]
            if row["n"]:
                counts = int(row["n"]), int(row["whole"])
                low, high = row["low"], row["high"]
                found.numbers[marks] = (counts[0], low, high, counts[1])
                inner = engine.rows(
                    f"SELECT min(if(x > {low!r}D, x, NULL)) AS low, "
                    f"max(if(x < {high!r}D, x, NULL)) AS high FROM ({numeric}) AS numbers"
                )[0]
                found.next_to[marks] = (
                    low if inner["low"] is None else inner["low"],
                    high if inner["high"] is None else inner["high"],
                )
                if marks == MARKS[0] and counts[0] >= 0.9 * known:
                    break
        else:
            dates = f"SELECT sum(n) AS n FROM texts WHERE v RLIKE {literal(_DATE)}"
            found.dates = int(engine.rows(dates)[0]["n"] or 0)
    return found


def _judged(name: str, found: _Counted) -> Looks:
    """Judge a column's kind, and what in it stands for "not known"."""
    known = found.rows - found.empty
    marked = [(text, n) for text, n in found.frequent if folded(text) in MARKERS]
    known -= sum(n for _, n in marked)
    distinct = found.distinct - len(marked)
    values = [(text, n) for text, n in found.frequent if folded(text) not in MARKERS]
    markers = [text for text, _ in marked]
    base: dict[str, Any] = {"name": name, "rows": found.rows}
    if known == 0:
        return Looks(**base, kind="empty", missing=found.rows, distinct=0, markers=tuple(markers))
    if {folded(text) for text, _ in values} <= set(FLAGS) and distinct <= len(FLAGS):
        meanings = {FLAGS[folded(text)] for text, _ in values}
        kind: Kind = "flag" if len(meanings) == 2 else "constant"
        return _of_values(base, kind, found.rows - known, values, markers)
    marks = max(found.numbers, key=lambda m: found.numbers[m][0], default=None)
    if marks is not None and found.numbers[marks][0] >= 0.9 * known:
        numeric, _, _, whole = found.numbers[marks]
        # What is no number in a column of numbers says why there is none, if it stands there often;
        # what stands there once may be a remark about a patient.
        for text, n in values:
            if not _is_number(text, marks) and n >= OFTEN:
                markers.append(text)
                known, distinct = known - n, distinct - 1
        low, high, codes = _without_codes(values, marks, found)
        markers += codes
        known -= sum(n for text, n in values if text in codes)
        distinct -= len(codes)
        seen = [(text, n) for text, n in values if text not in markers]
        if distinct <= 1:
            return _of_values(base, "constant", found.rows - known, seen, markers)
        if whole == numeric and distinct <= CODED and distinct == len(seen):
            return _of_values(base, "category", found.rows - known, _merged(seen), markers)
        decimals = any("," in text for text, _ in values) or marks[1] != ""
        return Looks(
            **base,
            kind="integer" if whole == numeric else "number",
            missing=found.rows - known,
            distinct=distinct,
            low=low,
            high=high,
            markers=tuple(markers),
            decimal=marks[0] if decimals else ".",
            thousands=marks[1],
        )
    if found.dates >= 0.9 * known:
        return Looks(**base, kind="date", missing=found.rows - known, distinct=distinct)
    folds = {folded(text) for text, _ in values}
    if len(folds) == 1:
        return _of_values(base, "constant", found.rows - known, values, markers)
    if distinct <= SEEN - len(marked) and len(folds) <= CATEGORIES and distinct < known / 2:
        return _of_values(base, "category", found.rows - known, _merged(values), markers)
    return Looks(**base, kind="text", missing=found.rows - known, distinct=distinct)


def _of_values(
    base: dict[str, Any], kind: Kind, missing: int, values: Iterable[tuple[str, int]],
    markers: Iterable[str],
) -> Looks:  # fmt: skip
    values = list(values)
    texts = tuple(text for text, _ in values)
    counts = tuple(n for _, n in values)
    return Looks(
        **base, kind=kind, missing=missing, distinct=len(texts), values=texts, counts=counts,
        markers=tuple(markers),
    )  # fmt: skip


def _merged(values: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """One spelling, the most frequent, for texts that differ in case and blanks only."""
    found: dict[str, list[Any]] = {}
    for text, n in values:
        entry = found.setdefault(folded(text), [canonical(text), 0])
        entry[1] += n
    return [(text, n) for text, n in found.values()]


def _is_number(text: str, marks: tuple[str, str]) -> bool:
    spelling = Spelling({}, folds=False, decimal=marks[0], thousands=marks[1])
    return re.match(NUMBER, spelling.known(text) or "") is not None


def _without_codes(
    values: list[tuple[str, int]], marks: tuple[str, str], found: _Counted
) -> tuple[float, float, list[str]]:
    """Leave out a number that stands for "not known": a usual one, frequent and far from others."""
    _, low, high, _ = found.numbers[marks]
    next_low, next_high = found.next_to[marks]
    spelling = Spelling({}, folds=False, decimal=marks[0], thousands=marks[1])
    codes = {
        float(spelling.known(text) or ""): text
        for text, n in values
        if n >= OFTEN and _is_number(text, marks)
    }
    left_out = []
    if low in CODES and low in codes and next_low >= 0 > low:
        left_out.append(codes[low])
        low = next_low
    if high in CODES and high in codes and high > 3 * abs(next_high):
        left_out.append(codes[high])
        high = next_high
    return low, high, left_out
