"""Step ``validate``: bronze to silver and quarantine, with a judgement on the table as a whole.

Two questions: does a row keep the study's rules (else it goes to quarantine with the reason), and
is the table what the study says it is (else the hospital stops here and its silver table of the
last good run stays as it is).
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.data.counted import ABOVE, counted
from tasks.data.drift import Outcome, bounds, origin_of, outcome_before, remark
from tasks.data.quality import LABEL, REASON, Judgement, checks_of, judge, typed
from tasks.data.rules import (
    Rule,
    category_sql,
    check_names,
    known_columns,
    rules_of,
    silver_definition,
    typed_sql,
)
from tasks.data.values import any_of, literal, quoted
from tasks.errors import DataError
from tasks.lake.engine.choose import engine_for
from tasks.lake.engine.engine import Engine
from tasks.run.step import Context, Result
from tasks.study import Study

_NAMED = "sha2(_who || '#1', 256) || if(_nth > 1, '#' || cast(_nth AS string), '')"
"""A patient's id where the table has none: of the row's content, with a mark on each further copy,
which ``features`` leaves out to give a copy the part of its first occurrence."""


UNCHANGED = " Silver was left as it is."
"""What follows what is wrong with a table."""


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
    owner = f"hospital {hospital}"
    rules = rules_of(study, hospital)
    silver_uri = context.settings.table(hospital, study.name, "silver")
    about = {"run": context.run.run, "step": "validate"}
    with engine_for(context.settings, study, owner, bronze.rows) as engine:
        columns = engine.read("bronze", bronze)
        with engine.keep("judged", _judged(engine, columns, study, hospital, rules)):
            before = outcome_before(silver_uri, context.plan, owner)
            judgement = _judge(context, engine, bronze.rows, before)
            if judgement.failed:
                raise DataError(_failure(context, judgement, engine))
            counts = _counts(engine, study, rules)
            now = Outcome(origin_of(context.plan), context.run.run, counts.kept, counts.positives)
            quarantine = engine.write(
                "SELECT _raw.*, _reason AS reason FROM judged WHERE _reason IS NOT NULL",
                context.settings.table(hospital, study.name, "quarantine"),
                about,
            )
            definition = silver_definition(study)
            silver = engine.write(
                _silver(study),
                silver_uri,
                {**about, **now.noted(), "definition": definition.digest},
                definition,
            )
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


def _judged(
    engine: Engine, columns: list[str], study: Study, hospital: str, rules: list[Rule]
) -> str:
    """SQL of what is known of each row.

    Columns: the study's as known text (null where missing), ``_patient``, ``_label`` (0, 1 or
    null), ``_broken`` (a struct of one flag a rule), ``_reason`` (the broken rules' names, null
    where the row keeps all) and ``_raw`` (a struct of bronze's, null where the row keeps all).
    """
    raw, before = f"struct({', '.join(map(quoted, columns))}) AS _raw", "bronze"
    layers = known_columns(study, set(columns), hospital)
    for name, layer in zip(("trimmed", "readable", "known"), layers, strict=True):
        texts = ", ".join(f"{sql} AS {quoted(column)}" for column, sql in layer.items())
        engine.view(name, f"SELECT {raw}, _row, {texts} FROM {before}")
        raw, before = "_raw", name
    known = layers[-1]
    who = quoted(study.id) if study.id else _content_sql(known)
    engine.view("named", f"SELECT *, {who} AS _who FROM known")
    # Only rows of which there are several are put in order.
    engine.view("repeated", "SELECT _who FROM named GROUP BY _who HAVING count(*) > 1")
    nth = "row_number() OVER (PARTITION BY named._who ORDER BY _row) AS _nth"
    engine.view(
        "copies",
        f"SELECT _row AS _copy, {nth} FROM named JOIN repeated ON named._who = repeated._who",
    )
    engine.view("numbered", "SELECT * FROM named LEFT JOIN copies ON _row = _copy")
    target = quoted(study.target.column)
    positive, negative = any_of(study.target.positive), any_of(study.target.negative)
    flags = ", ".join(f"{literal(rule.name)}, coalesce({rule.broken}, false)" for rule in rules)
    engine.view(
        "flagged",
        f"SELECT {', '.join(map(quoted, known))}, _raw, "
        f"{'_who' if study.id else _NAMED} AS _patient, "
        f"CASE WHEN {target} IN {positive} THEN 1 WHEN {target} IN {negative} THEN 0 END AS _label,"
        f" named_struct({flags}) AS _broken FROM numbered",
    )
    names = ", ".join(
        f"if(_broken.{quoted(rule.name)}, {literal(rule.name)}, NULL)" for rule in rules
    )
    engine.view(
        "reasoned", f"SELECT *, nullif(concat_ws('; ', {names}), '') AS _reason FROM flagged"
    )
    selected = [*map(quoted, known), "_patient", "_label", "_broken", "_reason"]
    raw = "if(_reason IS NULL, NULL, _raw) AS _raw"
    return f"SELECT {', '.join(selected)}, {raw} FROM reasoned"


def _content_sql(known: dict[str, str]) -> str:
    """Digest of a row's content, for a study without an id."""
    texts = ", ".join(f"coalesce({quoted(name)}, '')" for name in known)
    return f"sha2(concat_ws('\x1f', {texts}), 256)"


def _judge(context: Context, engine: Engine, rows: int, before: Outcome | None) -> Judgement:
    import pandas as pd

    study, hospital = context.study, context.own
    checks = checks_of(study, hospital, bounds(before, rows) if before else None)
    title, pages = (
        f"{study.name}, {hospital}",
        context.run.folder("validate", hospital) / "data_docs",
    )
    if rows > ABOVE:
        checks, figures = counted(engine, study, checks)
        return judge(pd.DataFrame([figures]), checks, title, pages)
    numbers = [name for name, column in study.columns.items() if column.range is not None]
    selected = [
        *map(quoted, [*study.columns, study.target.column, *([study.id] if study.id else [])]),
        *[f"{typed_sql(n, study.columns[n])} AS {quoted(typed(n))}" for n in numbers],
        f"_label AS {quoted(LABEL)}",
        f"_reason AS {quoted(REASON)}",
    ]
    frame = engine.frame(f"SELECT {', '.join(selected)} FROM judged")
    return judge(frame, checks, title, pages)


def _counts(engine: Engine, study: Study, rules: list[Rule]) -> Counts:
    """Count rows, outcomes, broken rules and missing values in one pass."""
    broken = [f"count_if(_broken.{quoted(rule.name)}) AS r{i}" for i, rule in enumerate(rules)]
    missing = [f"count_if({quoted(n)} IS NULL) AS m{i}" for i, n in enumerate(study.columns)]
    kept = "count_if(_reason IS NULL) AS kept"
    positives = "count_if(_reason IS NULL AND _label = 1) AS positives"
    selected = ", ".join(["count(*) AS n", kept, positives, *broken, *missing])
    told = engine.rows(f"SELECT {selected} FROM judged")[0]
    return Counts(
        rows=told["n"],
        kept=told["kept"],
        positives=told["positives"],
        reasons={r.name: told[f"r{i}"] for i, r in enumerate(rules) if told[f"r{i}"]},
        missing={
            n: told[f"m{i}"] / told["n"] if told["n"] else 0.0 for i, n in enumerate(study.columns)
        },
    )


def _failure(context: Context, judgement: Judgement, engine: Engine) -> str:
    """Say everything that is wrong with the table, without a value of it."""
    target = context.study.target
    values = any_of([*target.positive, *target.negative])
    column = quoted(target.column)
    words = "; ".join(f"{name}: {message}" for name, message in judgement.failed.items())
    if "{unknown}" in words:
        counted = f"SELECT count(DISTINCT {column}) AS n FROM judged WHERE {column} NOT IN {values}"
        words = words.replace("{unknown}", str(engine.rows(counted)[0]["n"]))
    return (
        f"hospital {context.own}: the table is not what study {context.study.name} says. {words}."
        f"{UNCHANGED} Data Docs: {judgement.pages / 'index.html'}"
    )


def _silver(study: Study) -> str:
    """SQL of silver's rows, in the order of its definition."""
    columns = [
        f"{category_sql(n, c) if c.type == 'category' else typed_sql(n, c)} AS {quoted(n)}"
        for n, c in study.columns.items()
    ]
    return (
        f"SELECT _patient AS patient, {', '.join(columns)}, _label AS label FROM judged "
        "WHERE _reason IS NULL"
    )
