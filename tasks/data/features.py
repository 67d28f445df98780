"""Step ``features``: silver to gold, the model's inputs with every patient's part.

Nothing is fitted: a feature depends on its own row and the study, and a patient's part on the
patient's id and the split's key, so no row can tell another anything (ADR 2).
"""

from __future__ import annotations

from tasks.data.profile import (
    BINS,
    ColumnProfile,
    Group,
    Profile,
    merge_bins,
    merge_categories,
)
from tasks.data.values import literal, quoted
from tasks.errors import DataError
from tasks.lake.engine.choose import engine_for
from tasks.lake.engine.engine import Engine
from tasks.run.step import Context, Result
from tasks.study import Feature, Study

PARTS = ("train", "validation", "test")
_MISSING = "missing"

Counts = dict[str, dict[str, tuple[int, int]]]
"""Per column and bin or category: rows and positives."""


def features(context: Context) -> Result:
    """Replace the hospital's gold table and profile its training rows.

    Args:
        context: The run and the hospital.

    Raises:
        DataError: The training part lacks one of the two outcomes.
    """
    study, hospital = context.study, context.own
    silver = context.run.read("validate", hospital).tables["silver"]
    inputs = [f"{feature_sql(feature)} AS {quoted(feature.name)}" for feature in study.features]
    owner = f"hospital {hospital}"
    with engine_for(context.settings, study, owner, silver.rows) as engine:
        engine.read("silver", silver)
        with engine.keep("parted", f"SELECT *, {part_sql(study)} AS part FROM silver"):
            counted = _counted(engine, study)
            parts = {p: counted["part "].get(p, (0, 0)) for p in PARTS}
            for part, (n, positives) in parts.items():
                if n == 0 or (part == "train" and positives in (0, n)):
                    raise DataError(
                        f"hospital {hospital}: part {part} has {n} rows, {positives} of them "
                        f"positive, of {silver.rows} in all. Every part needs rows, and train both "
                        "outcomes: the hospital has too few patients for this split."
                    )
            gold = engine.write(
                f"SELECT patient, part, label, {', '.join(inputs)} FROM parted",
                context.settings.table(hospital, study.name, "gold"),
                {"run": context.run.run, "step": "features"},
            )
    return Result(
        tables={"gold": gold},
        figures={
            "rows": gold.rows,
            "positives": sum(positives for _, positives in parts.values()),
            "parts": {p: {"rows": n, "positives": k} for p, (n, k) in parts.items()},
            "features": len(study.features),
            "profile": _profile(study, counted, *parts["train"]).model_dump(mode="json"),
        },
    )


def part_sql(study: Study) -> str:
    """SQL of a patient's part: the first 13 hex digits (52 bits, exact in a double) of SHA-256.

    Without an id column the same row can stand in a table twice. All its copies have one part:
    one to train on and its twin to test on would be a leak.
    """
    who = "patient" if study.id else "regexp_replace(patient, '#.*$', '')"
    digest = f"sha2({literal(study.split.key)} || ':' || {who}, 256)"
    place = f"cast(conv(substr({digest}, 1, 13), 16, 10) AS double) / {float(16**13)!r}D"
    train = study.split.train
    both = train + study.split.validation
    return (
        f"CASE WHEN {place} < {train!r}D THEN 'train' "
        f"WHEN {place} < {both!r}D THEN 'validation' ELSE 'test' END"
    )


def feature_sql(feature: Feature) -> str:
    """SQL of one feature over silver, a double."""
    column = quoted(feature.column)
    if feature.kind == "numeric":
        return f"cast({column} AS double)"
    if feature.kind == "binary":
        return f"coalesce(cast({column} AS double), 0D)"
    if feature.kind == "missing":
        return f"if({column} IS NULL, 1D, 0D)"
    return f"if({column} <=> {literal(str(feature.category))}, 1D, 0D)"


def _counted(engine: Engine, study: Study) -> Counts:
    """Count parts, and the training rows of every bin and category, in one pass."""
    entries = ["struct('part ' AS name, part AS bin)"]
    for name, column in study.columns.items():
        value = quoted(name)
        if column.range is not None:
            low, high = column.range
            place = f"cast(floor(({value} - {low!r}D) / {(high - low) / BINS!r}D) AS int)"
            value = f"if({value} IS NULL, NULL, greatest(0, least({BINS - 1}, {place})))"
        known = f"'=' || cast({value} AS string)"
        of_train = f"if(part = 'train', coalesce({known}, '{_MISSING}'), NULL)"
        entries.append(f"struct({literal(name)} AS name, {of_train} AS bin)")
    of_row = f"explode(array({', '.join(entries)}))"
    engine.view("entries", f"SELECT label, {of_row} AS entry FROM parted")
    rows = engine.rows(
        "SELECT entry.name AS name, entry.bin AS bin, count(*) AS n, sum(label) AS k "
        "FROM entries WHERE entry.bin IS NOT NULL GROUP BY entry.name, entry.bin"
    )
    found: Counts = {"part ": {}, **{name: {} for name in study.columns}}
    for row in rows:
        found[row["name"]][row["bin"]] = (int(row["n"]), int(row["k"]))
    return found


def _profile(study: Study, counted: Counts, rows: int, positives: int) -> Profile:
    least = study.evaluation.min_count
    columns = {}
    for name, column in study.columns.items():
        bins = {key[1:]: pair for key, pair in counted[name].items() if key != _MISSING}
        n, k = counted[name].get(_MISSING, (0, 0))
        missing = Group(name=_MISSING, rows=n, positives=k) if n >= least else None
        if column.range is not None:
            by_place = {int(place): pair for place, pair in bins.items()}
            groups = merge_bins(by_place, *column.range, least)
            columns[name] = ColumnProfile(kind="number", groups=groups, missing=missing)
        else:
            order = column.categories or ["0", "1"]
            ordered = {value: bins[value] for value in order if value in bins}
            groups = merge_categories(ordered, least)
            columns[name] = ColumnProfile(kind="category", groups=groups, missing=missing)
    return Profile(min_count=least, rows=rows, positives=positives, columns=columns)
