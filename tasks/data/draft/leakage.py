"""Target leakage: which columns predict the outcome by themselves, so are known only after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.data.draft.looks import Looks
from tasks.data.draft.table import Table
from tasks.data.values import NUMBER, canonical_sql, literal, number_sql, trimmed_sql
from tasks.lake.engine.local import LocalEngine
from tasks.study import canonical
from tasks.study.spelling import Spelling

LEAST = 5
"""Rows of either outcome below which nothing is said."""
LEAKS = 0.97
"""AUROC of one column from which it counts as leakage: no measurement at admission has it."""


def leaking_columns(
    tables: Sequence[Table],
    columns: Mapping[str, Looks],
    target: Looks,
    positive: Sequence[str],
) -> list[str]:
    """The columns that leak the outcome in each table with enough rows of both labels.

    Args:
        tables: The hospitals' tables, or one of all.
        columns: Those that the study would use.
        target: The outcome.
        positive: Its positive values.
    """
    worst: dict[str, float] = {}
    for table in tables:
        there = [name for name in columns if name in table.looks]
        if target.name in table.looks:
            found = _alone(table, [columns[name] for name in there], target, positive)
            for name, auroc in zip(there, found, strict=True):
                if auroc is not None:
                    worst[name] = min(worst.get(name, 1.0), auroc)
    return [name for name, auroc in worst.items() if auroc >= LEAKS]


def _alone(
    table: Table, looks: Sequence[Looks], target: Looks, positive: Sequence[str]
) -> list[float | None]:
    """The AUROC of each column alone: of its numbers, of its values, or of whether it is known."""
    wanted = ", ".join(literal(canonical(value).lower()) for value in positive)
    unknown = ", ".join(literal(each.lower()) for each in ("", *target.markers))
    outcome, engine = table.places[target.name], table.engine
    columns = [table.places[each.name] for each in looks]
    trimmed = ", ".join(f"{trimmed_sql(place)} AS {place}" for place in {*columns, outcome})
    engine.view("trimmed", f"SELECT {trimmed} FROM drafted")
    label = f"coalesce(lower({canonical_sql(outcome)}), '')"
    engine.view("labelled", f"SELECT *, {label} AS label FROM trimmed")
    with engine.keep(
        "outcomes",
        f"SELECT *, if(label IN ({wanted}), 1, 0) AS y FROM labelled "
        f"WHERE label NOT IN ({unknown})",
    ):
        return [_best(engine, *pair) for pair in zip(columns, looks, strict=True)]


def _best(engine: LocalEngine, column: str, looks: Looks) -> float | None:
    forms = _forms(column, looks)
    found = [_auroc(engine, f"SELECT {value} AS v, y FROM outcomes", by) for value, by in forms]
    return max((auroc for auroc in found if auroc is not None), default=None)


def _forms(column: str, looks: Looks) -> list[tuple[str, str]]:
    """What of a column is ranked, and by what."""
    markers = ", ".join(map(literal, ["", *looks.markers]))
    known = f"coalesce({column}, '') NOT IN ({markers})"
    if looks.kind not in ("number", "integer"):
        return [(f"if({known}, lower({column}), '')", "k / n")]
    number = number_sql(column, Spelling({}, False, looks.decimal, looks.thousands))
    numeric = (
        f"if({known} AND {number} RLIKE {literal(NUMBER)}, try_cast({number} AS double), NULL)"
    )
    return [(numeric, "v"), (f"if({known}, 1, 0)", "v")]


def _auroc(engine: LocalEngine, values: str, by: str) -> float | None:
    """The larger of a ranking's AUROC and its reverse's; None where a label has too few rows."""
    engine.view("ranked", f"SELECT v, count(*) AS n, sum(y) AS k FROM ({values}) AS w "
                          "WHERE v IS NOT NULL GROUP BY v")  # fmt: skip
    engine.view(
        "ordered",
        f"SELECT n, k, sum(n - k) OVER (ORDER BY {by} ROWS UNBOUNDED PRECEDING) AS below "
        "FROM ranked",
    )
    row = engine.rows(
        "SELECT sum(k) AS positives, sum(n - k) AS negatives, "
        "sum(k * (below - (n - k) / 2)) AS won FROM ordered"
    )[0]
    pairs = (row["positives"] or 0) * (row["negatives"] or 0)
    if min(row["positives"] or 0, row["negatives"] or 0) < LEAST:
        return None
    share = float(row["won"]) / float(pairs)
    return max(share, 1 - share)
