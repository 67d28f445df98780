"""Check a hospital's table against a study: one pass, no Spark, counts only and no values.

These are the rules and bounds of the step ``validate`` (``tasks/data/rules.py``, ``quality.py``)
in Python: a row that breaks a rule goes to quarantine; too many mean that the table is wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from tasks.data.csv_table import inspect_csv, is_blank, open_rows
from tasks.data.quality import MAX_BROKEN, MAX_UNKNOWN_TARGET
from tasks.data.rules import check_names
from tasks.data.values import NUMBER
from tasks.errors import FedriskError
from tasks.onboarding.checks.result import CheckResult, missing, ok, unknown
from tasks.study import Column, Study, canonical
from tasks.study.base import BLANKS

_NUMBER = re.compile(NUMBER)
MAX_REASONS = 20
"""Maximum number of reasons to list."""


def check_table(path: Path, study: Study, hospital: str) -> list[CheckResult]:
    """Check columns, values and outcome.

    Args:
        path: The hospital's table.
        study: The study.
        hospital: The hospital's name; empty where it is not known.
    """
    if study.source.format != "csv":
        what = f"is {study.source.format}: checked only by the step validate"
        return [unknown("table", what)]
    try:
        check_names(study)
        table = inspect_csv(path, study, f"table {path.name}", hospital or None)
    except FedriskError as error:
        return [missing("table", str(error), "Correct the table, or ask to change the study.")]
    found = [ok("table", f"{path.name} has the study's columns and {table.rows} rows")]
    with open_rows(path, study.source) as lines:
        rows = (row for row in lines if not is_blank(row))
        if study.source.header:
            next(rows)
        places = {name: table.fields.index(field) for name, field in table.columns.items()}
        counts = count(rows, places, study, hospital)
    return [*found, *_judge(counts, study, hospital)]


class TableCounts:
    """Counts over a table.

    Attributes:
        rows: All rows.
        quarantined: Rows that break a rule.
        broken: Rows by broken rule.
        known: Rows whose value is known, by column.
        repeated: Rows whose id stands there more than once.
        positives: Kept rows with a positive outcome.
        negatives: Kept rows with a negative outcome.
    """

    def __init__(self) -> None:
        """Start all counts at 0."""
        self.rows = self.quarantined = self.positives = self.negatives = 0
        self.repeated = 0
        self.broken: Counter[str] = Counter()
        self.known: Counter[str] = Counter()


def count(
    rows: Iterable[list[str]], places: Mapping[str, int], study: Study, hospital: str
) -> TableCounts:
    """Apply the rules to each row and count.

    Args:
        rows: Fields of each row.
        places: Where in a row each of the study's columns stands.
        study: The study with the rules.
        hospital: The hospital's name, for columns that are optional at some hospitals.
    """
    found, seen = TableCounts(), Counter[str]()
    target = study.target.column
    spellings = {name: study.spelling(name, hospital, marks=True) for name in study.columns}
    spelling = study.spelling(target, hospital)
    positive = set(map(canonical, study.target.positive))
    negative = set(map(canonical, study.target.negative))
    for values in rows:
        found.rows += 1
        row = {name: values[place] for name, place in places.items()}
        broken = []
        if study.id:
            own = row[study.id].strip(BLANKS)
            if not own:
                broken.append(f"{study.id}: missing")
            elif own in seen:
                broken.append(f"{study.id}: duplicate")
            seen[own] += 1
        for name, column in study.columns.items():
            text = spellings[name].known(row.get(name, ""))
            if text is None:
                if column.max_missing == 0 and hospital not in column.optional_at:
                    broken.append(f"{name}: missing")
                continue
            found.known[name] += 1
            if rule := _broken(column, text):
                broken.append(f"{name}: {rule}")
        outcome = spelling.known(row[target])
        if outcome is None:
            broken.append(f"{target}: missing")
        elif outcome not in positive | negative:
            broken.append(f"{target}: value")
        found.broken.update(broken)
        if broken:
            found.quarantined += 1
        elif outcome in positive:
            found.positives += 1
        else:
            found.negatives += 1
    found.repeated = sum(number for own, number in seen.items() if own and number > 1)
    return found


def _broken(column: Column, text: str) -> str | None:
    """The rule that a known value breaks."""
    if column.type == "category":
        return None if text in set(map(canonical, column.categories)) else "category"
    if column.type == "flag":
        return None if text in ("0", "1") else "type"
    if not _NUMBER.match(text):
        return "type"
    value = float(text)
    if column.type == "integer" and value != value // 1:
        return "type"
    low, high = column.range or (float("-inf"), float("inf"))
    return None if low <= value <= high else "range"


def _judge(counts: TableCounts, study: Study, hospital: str) -> list[CheckResult]:
    found, rows, target = [], counts.rows, study.target.column
    for rule, number in counts.broken.most_common(MAX_REASONS):
        about, _, kind = rule.rpartition(": ")
        of = rows if kind in ("missing", "duplicate") else counts.known.get(about, rows)
        if kind == "duplicate":
            number = counts.repeated
        most = MAX_UNKNOWN_TARGET if rule == f"{target}: value" else MAX_BROKEN
        if number > most * of:
            found.append(
                missing(
                    f"values, {rule}",
                    f"{number} of {of}, at most {most:.0%} may",
                    f"Expected {_expected(about, study)}: check units, spelling and markers.",
                )
            )
    for name, column in study.columns.items():
        lacking = rows - counts.known[name]
        if hospital not in column.optional_at and lacking > (column.max_missing or 1) * rows:
            found.append(
                missing(
                    f"values, {name}: missing",
                    f"{lacking} of {rows} rows lack it, at most {column.max_missing:.0%} may",
                    "Check the markers in missing, or ask to change the study.",
                )
            )
    if counts.quarantined > MAX_BROKEN * rows:
        found.append(
            missing(
                "quarantine",
                f"{counts.quarantined} of {rows} rows break a rule, more than half",
                "Check " + _listed(counts),
            )
        )
    else:
        note = f" ({_listed(counts)})" if counts.quarantined else ""
        found.append(
            ok("quarantine", f"{counts.quarantined} of {rows} rows would be quarantined{note}")
        )
    held: Mapping[str, int] = {"positive": counts.positives, "negative": counts.negatives}
    lack = [kind for kind, number in held.items() if number == 0]
    if lack:
        found.append(
            missing(
                "outcome",
                f"no usable row is {' or '.join(lack)}",
                f"Expected both at every hospital: check column {target} against the study.",
            )
        )
    else:
        found.append(ok("outcome", "both outcomes occur"))
    return found


def _listed(counts: TableCounts) -> str:
    return ", ".join(f"{rule} {number}" for rule, number in counts.broken.most_common(MAX_REASONS))


def _expected(name: str, study: Study) -> str:
    if name == study.target.column:
        return ", ".join([*study.target.positive, *study.target.negative])
    column = study.columns.get(name)
    if column is None:
        return "one row per patient"
    if column.range is not None:
        return f"{column.range[0]:g} to {column.range[1]:g} {column.unit}".strip()
    return "yes or no, 1 or 0" if column.type == "flag" else ", ".join(column.categories)
