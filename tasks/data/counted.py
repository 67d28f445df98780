"""Judge a large table on what the engine has counted, so that no process holds its rows.

The checks are those of ``quality``, each reduced to one figure: the share of known values that
meet it, or the mean that it is about. Great Expectations judges a table of one row, a column a
check.
"""

from __future__ import annotations

from dataclasses import replace

from tasks.data.quality import Check
from tasks.data.rules import typed_sql
from tasks.data.values import NUMBER, literal, quoted
from tasks.lake.engine.engine import Engine
from tasks.study import Study

ABOVE = 200_000
"""Rows from which a table is judged on counts: below, its values are cheaper than its counts."""


def counted(
    engine: Engine, study: Study, checks: list[Check]
) -> tuple[list[Check], dict[str, float | None]]:
    """Count what the checks ask of the view ``judged``.

    Args:
        engine: Has the view.
        study: The columns.
        checks: The expectations of a table's values.

    Returns:
        The checks of the figures, with their messages filled in, and the figures by name.
    """
    import great_expectations.expectations as gxe

    selected = ["avg(cast(_label AS double)) AS mean"]
    for i, check in enumerate(checks):
        of_known, of_broken = _counts_sql(check.name, study)
        selected.append(f"{of_known} AS k{i}, {of_broken} AS b{i}")
    row = engine.rows(f"SELECT {', '.join(selected)} FROM judged")[0]
    figures: dict[str, float | None] = {}
    found = []
    for i, check in enumerate(checks):
        known, broken = int(row[f"k{i}"]), int(row[f"b{i}"])
        limits = {"min_value": getattr(check.expectation, "mostly", 1.0)}
        figures[check.name] = 1 - broken / known if known else None
        if check.name.endswith(": drift"):
            limits = {
                "min_value": check.expectation.min_value,
                "max_value": check.expectation.max_value,
            }
            # Without any label there is no mean, which is no good one either.
            figures[check.name] = -1.0 if row["mean"] is None else row["mean"]
        expectation = gxe.ExpectColumnValuesToBeBetween(column=check.name, **limits)
        found.append(replace(check, expectation=expectation, message=check.filled(known, broken)))
    return found, figures


def _counts_sql(check: str, study: Study) -> tuple[str, str]:
    """SQL of a check's known values and of those that break it."""
    about, _, kind = check.rpartition(": ")
    column = quoted(about)
    repeated = f"SELECT count(*) AS n FROM judged WHERE {column} IS NOT NULL GROUP BY {column}"
    rule = f"count_if(_broken.{quoted(check)})"
    kinds = {
        "rows": ("1", "if(count(*) > 0, 0, 1)"),
        "quarantine": ("count(*)", "count_if(_reason IS NOT NULL)"),
        "missing": ("count(*)", f"count_if({column} IS NULL)"),
        "duplicate": (
            f"count({column})",
            f"(SELECT coalesce(sum(n), 0) FROM ({repeated}) AS counted WHERE n > 1)",
        ),
        "positives": ("1", "if(count_if(_label = 1) > 0, 0, 1)"),
        "negatives": ("1", "if(count_if(_label = 0) > 0, 0, 1)"),
        "drift": ("count(_label)", "0"),
    }
    if kind == "range":
        return f"count({typed_sql(about, study.columns[about])})", rule
    if kind == "type" and study.columns[about].type != "flag":
        # A number that is not whole breaks an integer's rule, and is no sign of a wrong column.
        return f"count({column})", f"count_if(NOT ({column} RLIKE {literal(NUMBER)}))"
    return kinds.get(kind, (f"count({column})", rule))
