"""Draft a study: look at the tables, choose target, id, site and columns, write the YAML."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.data.draft.dialect import is_ascii
from tasks.data.draft.leakage import leaking_columns
from tasks.data.draft.looks import Looks
from tasks.data.draft.table import Table
from tasks.data.values import canonical_sql, literal, trimmed_sql
from tasks.errors import DataError
from tasks.study.base import FLAGS, canonical, folded

IDS = re.compile(
    r"(^|_)(id|pid|mrn|ssn|subject|patient|case|record|nr|uid|index)(_|$)|^(unnamed|x)$"
)
PATIENTS = re.compile(r"(^|_)(id|pid|mrn|ssn|uid)(_|$)")
"""Names of columns that are nothing but ids."""
SITES = re.compile(r"(^|_)(site|cent(er|re)|hospital|clinic|institution|inst|location|ward)(_|$)")
TARGETS = re.compile(
    r"outcome|target|label|death|dead|died|mortal|event|status|readmi|relapse|recur|diagnos|class"
    r"|stroke$|disease$|^num$|^y$"
)
POSITIVE = ("1", "yes", "true", "dead", "died", "positive", "event", "case", "malignant", "present")
LEAST_ROWS, LEAST_POSITIVES = 30, 5
"""Rows and positives below which a site is left out."""


@dataclass(frozen=True)
class Choice:
    """What a person may name.

    Attributes:
        target: The outcome's column.
        positive: Its positive values; empty to guess.
        site: The column that names the hospital.
        id: The column that identifies a patient.
    """

    target: str | None = None
    positive: tuple[str, ...] = ()
    site: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class Drafted:
    """What stands in a draft.

    Attributes:
        tables: The tables.
        columns: The study's columns: their name there, and how they look over all tables.
        target: The outcome.
        positive: Its positive values.
        id: The patients' column.
        site: The hospitals' column.
        sites: The sites that become hospitals, and their rows.
        left_out: Columns that are not used, and why.
        decided: What was chosen without being asked for; a person must look at it.
    """

    tables: Sequence[Table]
    columns: dict[str, Looks]
    target: Looks
    positive: tuple[str, ...]
    id: str | None
    site: str | None
    sites: dict[str, int]
    left_out: dict[str, str]
    decided: tuple[str, ...]


def choose(tables: Sequence[Table], choice: Choice) -> Drafted:
    """Choose what of the tables the study uses.

    Args:
        tables: The hospitals' tables, or one of all.
        choice: What a person has named.

    Raises:
        DataError: A column that was named is not there, the tables are of different kinds, or no
            column can be the outcome.
    """
    tables = _read_alike(tables)
    merged = _merged(tables)
    named = [each for each in (choice.target, choice.site, choice.id) if each is not None]
    for each in named:
        if each not in merged:
            raise DataError(f"there is no column {each}; the tables have {', '.join(merged)}.")
        if named.count(each) > 1:
            raise DataError(f"column {each} cannot be two of target, site and id.")
    free = {name: looks for name, looks in merged.items() if name not in named}
    decided: list[str] = []
    sites_named = {n: looks for n, looks in free.items() if not TARGETS.search(cleaned(n))}
    site = choice.site or (_first(sites_named, SITES, _may_be_site) if len(tables) == 1 else None)
    if site and not choice.site:
        decided.append(f"site column: {_shown(site)}")
    ids = {name: looks for name, looks in free.items() if name != site}
    patient = choice.id or _first(ids, IDS, lambda looks: looks.unique)
    if patient and not choice.id:
        decided.append(f"id: {_shown(patient)}")
    rest = {n: looks for n, looks in merged.items() if n not in (site, patient)}
    target = choice.target or _guessed_target(rest)
    if target is None:
        raise DataError("no column with two values can be the outcome. Name it with --target.")
    if not choice.target:
        decided.append(f"target: {_shown(target)}")
    outcome = rest.pop(target)
    if len(outcome.values) < 2:
        raise DataError(
            f"column {target} has no two values or more of which one can be the outcome."
        )
    positive = _positive(outcome, choice.positive)
    if not choice.positive:
        decided.append(f"positive values: {', '.join(map(_shown, positive))}")
    columns, left_out = {}, {}
    for name, looks in rest.items():
        if PATIENTS.search(cleaned(name)) and looks.kind in ("integer", "number", "text"):
            left_out[name] = "an id that repeats"
            decided.append(
                f"id: {_shown(name)} repeats. Has a patient several rows? Training and test would "
                "share patients: keep one row a patient"
            )
        elif looks.kind in ("date", "text", "constant", "empty"):
            left_out[name] = {
                "date": "dates", "text": f"{looks.distinct} different texts",
                "constant": "one value", "empty": "no value",
            }[looks.kind]  # fmt: skip
        elif IDS.search(cleaned(name)) and looks.distinct > looks.rows / 2 / len(tables):
            left_out[name] = "looks like an id"
        elif looks.missing > 0.9 * looks.rows:
            left_out[name] = "known in less than a tenth of the rows"
        else:
            columns[name] = looks
    if not columns:
        raise DataError("no column is left that a model can use.")
    sites, worst = _sites(tables[0], site, target, positive, columns) if site else ({}, {})
    columns = {n: replace(c, worst=worst.get(n, c.worst)) for n, c in columns.items()}
    if site and len(sites) < 2:
        raise DataError(
            f"column {site}: fewer than two sites have {LEAST_ROWS} rows and {LEAST_POSITIVES} "
            "positives. Name another with --site."
        )
    for name in leaking_columns(tables, columns, outcome, positive):
        decided.append(
            f"outcome: {_shown(name)} alone tells it in nearly all rows. Is it known only after it?"
        )
    return Drafted(
        tables, columns, outcome, positive, patient, site, sites, left_out, tuple(decided)
    )


def _read_alike(tables: Sequence[Table]) -> list[Table]:
    """The tables with one way to read them: one of ASCII alone has the encoding of the others."""
    first = next((each for each in tables if each.source.encoding != "utf-8"), tables[0])
    found = []
    for table in tables:
        encoding = first.source.encoding
        if table.csv and table.source.encoding != encoding != "utf-16" and is_ascii(table.path):
            source = table.source.model_copy(update={"encoding": encoding})
            table = replace(table, source=source)
        if table.source != first.source:
            raise DataError(
                f"{table.path.name} is not written as {first.path.name} is (format, encoding, "
                "delimiter or header). A study reads its tables in one way: draft each by itself, "
                "or convert one."
            )
        found.append(table)
    return found


def _merged(tables: Sequence[Table]) -> dict[str, Looks]:
    """How each column looks over all tables."""
    found: dict[str, Looks] = {}
    rows = sum(table.rows for table in tables)
    for table in tables:
        for name, looks in table.looks.items():
            found[name] = _together(found[name], looks) if name in found else looks
    return {
        name: replace(each, missing=each.missing + rows - each.rows, rows=rows, worst=_share(each))
        for name, each in found.items()
    }


def _together(one: Looks, other: Looks) -> Looks:
    """How a column looks over two tables; its kind is the least special of the two."""
    values = dict(zip(one.values, one.counts, strict=True))
    spelled = {folded(text): text for text in values}
    for text, n in zip(other.values, other.counts, strict=True):
        known = spelled.setdefault(folded(text), text)
        values[known] = values.get(known, 0) + n
    order = ("empty", "constant", "flag", "category", "integer", "number", "date", "text")
    kind = max(one.kind, other.kind, key=order.index)
    if kind == "constant" and len(values) > 1:
        kind = "category"
    low, high = one.low, one.high
    if kind in ("integer", "number"):
        # A table with few numbers has them as a category, or as its only value.
        numbers = [_as_number(text) for text in values]
        if None in numbers:
            kind = "text"
        ends = (one.low, one.high, other.low, other.high)
        seen = [n for n in (*numbers, *ends) if n is not None and not math.isnan(n)]
        low, high = min(seen), max(seen)
    marked = other if (other.decimal, other.thousands) != (".", "") else one
    return replace(
        one,
        kind=kind,
        low=low,
        high=high,
        unique=one.unique and other.unique,
        decimal=marked.decimal,
        thousands=marked.thousands,
        missing=one.missing + other.missing,
        worst=max(_share(one), _share(other)),
        rows=one.rows + other.rows,
        distinct=max(one.distinct, other.distinct, len(values)),
        values=tuple(values),
        counts=tuple(values.values()),
        markers=tuple(dict.fromkeys([*one.markers, *other.markers])),
    )


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _shown(text: str) -> str:
    """A text from a table in a comment: in one line, whatever it holds."""
    return json.dumps(text, ensure_ascii=False)


def _share(looks: Looks) -> float:
    """The largest share of missing values of any hospital that has the column in part."""
    own = looks.missing / looks.rows
    return max(looks.worst, own if own < 1 else 0.0)


def cleaned(name: str) -> str:
    """A column's name in lower case with one _ between words."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()).strip("_")


def _first(merged: dict[str, Looks], pattern: re.Pattern[str], fits: Any) -> str | None:
    named = [n for n, looks in merged.items() if pattern.search(cleaned(n)) and fits(looks)]
    return named[0] if named else None


def _may_be_site(looks: Looks) -> bool:
    known = looks.rows - looks.missing
    return looks.kind in ("category", "flag") and 2 <= looks.distinct <= known / LEAST_ROWS


def _guessed_target(rest: dict[str, Looks]) -> str | None:
    """The last flag, or pair of values, whose name sounds like an outcome; else the last flag."""
    pairs = [
        n
        for n, looks in rest.items()
        if looks.kind == "flag" or (looks.kind == "category" and looks.distinct == 2)
    ]
    named = [n for n in pairs if TARGETS.search(cleaned(n))]
    found = named or pairs
    return found[-1] if found else None


def _positive(outcome: Looks, named: Sequence[str]) -> tuple[str, ...]:
    if named:
        asked = {folded(text) for text in named}
        unknown = sorted(asked - {folded(text) for text in outcome.values})
        if unknown:
            raise DataError(
                f"column {outcome.name} has no value {', '.join(unknown)}; it has "
                f"{', '.join(outcome.values)}."
            )
        return tuple(text for text in outcome.values if folded(text) in asked)
    usual = [t for t in outcome.values if folded(t) in POSITIVE or FLAGS.get(folded(t)) == "1"]
    if usual and len(usual) < len(outcome.values):
        return tuple(usual)
    rarest = min(zip(outcome.counts, outcome.values, strict=True))
    return (rarest[1],)


def _sites(
    table: Table,
    site: str,
    target: str,
    positive: Sequence[str],
    columns: dict[str, Looks],
) -> tuple[dict[str, int], dict[str, float]]:
    """Look at the sites with enough rows and positives.

    Returns:
        Their rows, largest first, and the largest share of missing values of each column.
    """
    names = {"site": site, "outcome": target} | {f"x{i}": name for i, name in enumerate(columns)}
    trimmed = ", ".join(f"{trimmed_sql(table.places[n])} AS {as_}" for as_, n in names.items())
    table.engine.view("trimmed", f"SELECT {trimmed} FROM drafted")
    plain = ", ".join(f"{canonical_sql(as_)} AS {as_}" for as_ in names)
    table.engine.view("plain", f"SELECT {plain} FROM trimmed")
    wanted = ", ".join(literal(canonical(value).lower()) for value in positive)
    known = [
        f"count_if(coalesce(x{i}, '') NOT IN "
        f"({', '.join(map(literal, ['', *looks.markers]))})) AS x{i}"
        for i, looks in enumerate(columns.values())
    ]
    found = table.engine.rows(
        f"SELECT site, count(*) AS n, {', '.join(known)}, "
        f"count_if(lower(outcome) IN ({wanted})) AS k FROM plain "
        "GROUP BY site ORDER BY n DESC, site"
    )
    markers = {"", *table.looks[site].markers}
    # Sites that differ in case or blanks alone are one.
    by_site: dict[str, dict[str, Any]] = {}
    for row in found:
        if row["site"] is None or row["site"] in markers:
            continue
        first = by_site.setdefault(folded(row["site"]), dict(row))
        if first["site"] != row["site"]:
            first |= {key: first[key] + row[key] for key in row if key != "site"}
    kept = [
        row
        for row in by_site.values()
        if row["n"] >= LEAST_ROWS and LEAST_POSITIVES <= row["k"] <= row["n"] - LEAST_POSITIVES
    ]
    worst = {
        name: max((1 - row[f"x{i}"] / row["n"] for row in kept), default=0.0)
        for i, name in enumerate(columns)
    }
    return {row["site"]: int(row["n"]) for row in kept}, worst
