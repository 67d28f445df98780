"""Step ``validate``: bronze to silver and quarantine, with a judgement on the table as a whole.

Two questions: does a row keep the study's rules (else it goes to quarantine with the reason), and
is the table what the study says it is (else the hospital stops here and its silver table of the
last good run stays as it is).
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tasks.data.drift import Outcome, bounds, origin_of, outcome_before, remark
from tasks.data.quality import LABEL, REASON, Judgement, checks_of, judge, typed
from tasks.data.rules import (
    Rule,
    category_sql,
    check_names,
    constraints_of,
    known_columns,
    rules_of,
    silver_columns,
    typed_sql,
)
from tasks.data.values import any_of, literal, quoted
from tasks.errors import DataError
from tasks.lake.session import persisted, spark_session, tune
from tasks.lake.tables import commits, define, overwrite, read_version
from tasks.run.manifest import TableVersion
from tasks.run.step import Context, Result
from tasks.study import Study

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


_NAMED = "concat(sha2(concat(_who, '#1'), 256), if(_nth > 1, concat('#', _nth), ''))"
"""A patient's id where the table has none: of the row's content, with a mark on each further copy,
which ``features`` leaves out to give a copy the part of its first occurrence."""


@dataclass(frozen=True)
class Counts:
    """Rows of one table: all, kept, kept and positive; by broken rule; share missing by column."""

    rows: int
    kept: int
    positives: int
    reasons: dict[str, int]
    missing: dict[str, float]


def validate(context: Context) -> Result:
    """Judge the hospital's bronze table and replace silver and quarantine.

    Args:
        context: The run and the hospital.

    Raises:
        DataError: The table as a whole is not what the study says; silver is untouched.
    """
    study, hospital = context.study, context.own
    check_names(study)
    bronze = context.run.read("collect", hospital).tables["bronze"]
    # Great Expectations takes 3 s to import, as long as Java takes to start: both at once.
    importing = threading.Thread(target=import_module, args=("great_expectations.expectations",))
    importing.start()
    spark = spark_session(context.settings, owner=f"hospital {hospital}")
    tune(spark, bronze.rows)
    raw = read_version(spark, bronze)
    rules = rules_of(study, hospital)
    silver_uri = context.settings.table(hospital, study.name, "silver")
    quarantine_uri = context.settings.table(hospital, study.name, "quarantine")
    about = {"run": context.run.run, "step": "validate"}
    with persisted(_judged(raw, study, rules, set(raw.columns))) as rows:
        importing.join()
        before = outcome_before(spark, silver_uri, context.plan)
        judgement = _judge(context, rows, before)
        if judgement.failed:
            raise DataError(_failure(context, judgement, rows))
        counts = _counts(rows, study, rules)
        now = Outcome(origin_of(context.plan), context.run.run, counts.kept, counts.positives)
        refused = rows.where("_reason IS NOT NULL").selectExpr("_raw.*", "_reason AS reason")
        quarantine = overwrite(refused, quarantine_uri, about)
        silver = _write_silver(spark, rows, study, silver_uri, {**about, **now.noted()})
    return Result(
        tables={"silver": silver, "quarantine": quarantine},
        files={"data_docs": context.run.relative(judgement.pages / "index.html")},
        figures={
            "rows_in": counts.rows,
            "rows": silver.rows,
            "positives": counts.positives,
            "quarantined": quarantine.rows,
            "reasons": counts.reasons,
            "missing": counts.missing,
            "target_rate": now.rate,
            "target_rate_before": before.rate if before else None,
            "expectations": judgement.expectations,
            "failed": sorted(judgement.failed),
        },
        notes=[note for note in (remark(before, now),) if note],
    )


def _judged(raw: DataFrame, study: Study, rules: list[Rule], present: set[str]) -> DataFrame:
    """What is known of each row.

    Columns: the study's as known text (null where missing), ``_raw`` (a struct of bronze's),
    ``_patient``, ``_label`` (0, 1 or null), ``_broken`` (a struct of one flag a rule) and
    ``_reason`` (the broken rules' names, null where the row keeps all).
    """
    known = known_columns(study, present)
    struct = ", ".join(map(quoted, raw.columns))
    texts = [f"{sql} AS {quoted(name)}" for name, sql in known.items()]
    frame = raw.selectExpr(f"struct({struct}) AS _raw", "_row", *texts)
    who = quoted(study.id) if study.id else _content_sql(known)
    frame = frame.selectExpr("*", f"{who} AS _who")
    frame = frame.selectExpr("*", "row_number() OVER (PARTITION BY _who ORDER BY _row) AS _nth")
    target = quoted(study.target.column)
    positive, negative = any_of(study.target.positive), any_of(study.target.negative)
    flags = ", ".join(f"{literal(rule.name)}, coalesce({rule.broken}, false)" for rule in rules)
    frame = frame.selectExpr(
        *map(quoted, known),
        "_raw",
        f"{'_who' if study.id else _NAMED} AS _patient",
        f"CASE WHEN {target} IN {positive} THEN 1 WHEN {target} IN {negative} THEN 0 END AS _label",
        f"named_struct({flags}) AS _broken",
    )
    names = ", ".join(
        f"if(_broken.{quoted(rule.name)}, {literal(rule.name)}, NULL)" for rule in rules
    )
    return frame.selectExpr("*", f"nullif(concat_ws('; ', {names}), '') AS _reason")


def _content_sql(known: dict[str, str]) -> str:
    """Digest of a row's content, for a study without an id."""
    texts = ", ".join(f"coalesce({quoted(name)}, '')" for name in known)
    return f"sha2(concat_ws('\\u001f', {texts}), 256)"


def _judge(context: Context, rows: DataFrame, before: Outcome | None) -> Judgement:
    study, hospital = context.study, context.own
    numbers = [name for name, column in study.columns.items() if column.range is not None]
    frame = rows.selectExpr(
        *map(quoted, known_columns(study, set())),
        *[f"{typed_sql(n, study.columns[n])} AS {quoted(typed(n))}" for n in numbers],
        f"_label AS {quoted(LABEL)}",
        f"_reason AS {quoted(REASON)}",
    )
    drift = bounds(before, rows.count()) if before else None
    checks = checks_of(study, hospital, drift)
    pages = context.run.folder("validate", hospital) / "data_docs"
    return judge(frame.toPandas(), checks, f"{study.name}, {hospital}", pages)


def _counts(rows: DataFrame, study: Study, rules: list[Rule]) -> Counts:
    """Count rows, outcomes, broken rules and missing values in one pass."""
    broken = [f"count_if(_broken.{quoted(rule.name)}) AS r{i}" for i, rule in enumerate(rules)]
    missing = [f"count_if({quoted(n)} IS NULL) AS m{i}" for i, n in enumerate(study.columns)]
    kept = "count_if(_reason IS NULL) AS kept"
    positives = "count_if(_reason IS NULL AND _label = 1) AS positives"
    told = rows.selectExpr("count(*) AS n", kept, positives, *broken, *missing).first().asDict()
    return Counts(
        rows=told["n"],
        kept=told["kept"],
        positives=told["positives"],
        reasons={r.name: told[f"r{i}"] for i, r in enumerate(rules) if told[f"r{i}"]},
        missing={
            n: told[f"m{i}"] / told["n"] if told["n"] else 0.0 for i, n in enumerate(study.columns)
        },
    )


def _failure(context: Context, judgement: Judgement, rows: DataFrame) -> str:
    """Say everything that is wrong with the table, without a value of it."""
    target = context.study.target
    values = any_of([*target.positive, *target.negative])
    column = quoted(target.column)
    words = "; ".join(f"{name}: {message}" for name, message in judgement.failed.items())
    if "{unknown}" in words:
        unknown = rows.where(f"{column} NOT IN {values}").select(column).distinct().count()
        words = words.replace("{unknown}", str(unknown))
    return (
        f"hospital {context.own}: the table is not what study {context.study.name} says. {words}. "
        f"Silver was left as it is. Data Docs: {judgement.pages / 'index.html'}"
    )


def _write_silver(
    spark: SparkSession, rows: DataFrame, study: Study, uri: str, about: dict[str, Any]
) -> TableVersion:
    """Replace silver, in a table whose constraints are the study's.

    The table is made anew only where the study's columns have changed: constraints belong to the
    table, and one commit less is a second less.
    """
    columns, constraints = silver_columns(study), constraints_of(study)
    text = json.dumps([columns, constraints], sort_keys=True)
    definition = hashlib.sha256(text.encode()).hexdigest()[:16]
    newest = next(commits(spark, uri), None)
    if newest is None or newest.about.get("definition") != definition:
        define(spark, uri, columns, constraints)
    typed_columns = [
        f"{category_sql(n, c) if c.type == 'category' else typed_sql(n, c)} AS {quoted(n)}"
        for n, c in study.columns.items()
    ]
    silver = rows.where("_reason IS NULL").selectExpr(
        "_patient AS patient", *typed_columns, "_label AS label"
    )
    return overwrite(silver, uri, {**about, "definition": definition}, keep_schema=True)
