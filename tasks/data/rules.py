"""What a row must meet, from the study's columns: as SQL for the engines and for Delta.

A row that breaks a rule goes to quarantine with the rule's name (``age: range``); the rules are
judged on what is known of a value, so that a missing value breaks ``missing`` and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from tasks.data.values import (
    NUMBER,
    any_of,
    known_sql,
    literal,
    quoted,
    read_sql,
    trimmed_sql,
)
from tasks.errors import StudyError
from tasks.lake.tables import UNUSUAL, Definition, lake_name
from tasks.study import Column, Study

RESERVED = frozenset(
    {"patient", "label", "part", "reason"}
    | {"_row", "_raw", "_who", "_nth", "_patient", "_label", "_broken", "_reason", "_copy"}
)
"""Columns that fedrisk adds to a hospital's tables, and to those that it makes on the way."""


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        name: Column and rule, the reason in quarantine.
        column: The column that it is about.
        broken: SQL over known texts (``known_columns``) that is true where a row breaks it.
    """

    name: str
    column: str
    broken: str


def check_names(study: Study) -> None:
    """Refuse columns that bear a name which fedrisk adds to the tables, or which gold cannot.

    Raises:
        StudyError: One does.
    """
    raw = [lake_name(name).lower() for name in study.raw_columns]
    added = {
        name
        for name, bronze in zip(study.raw_columns, raw, strict=True)
        if bronze in ("_row", "reason") or raw.count(bronze) > 1
    }
    made = {*study.columns, *(f.name for f in study.features)}
    taken = sorted({name for name in made if name.lower() in RESERVED} | added)
    if taken:
        raise StudyError(
            f"study {study.name}: columns {', '.join(taken)} bear names that fedrisk adds to the "
            "tables. Rename them in the study and in the source."
        )
    unusual = [name for name in study.columns if set(name) & UNUSUAL]
    if unusual:
        raise StudyError(
            f"study {study.name}: the name of column {', '.join(map(repr, unusual))} holds a blank "
            "or one of ,;.{}()=. Rename it ('_' is fine) and give the table's name in aliases."
        )


def known_columns(study: Study, present: set[str], hospital: str) -> list[dict[str, str]]:
    """SQL of every study column's known text: canonical, null where it is missing.

    Args:
        study: The columns.
        present: Columns that the hospital's table has; the others are null throughout.
        hospital: Whose table it is.

    Returns:
        Three queries' columns, each over the one before it, so that no text is worked out twice:
        without blanks around it, in the study's notation, known.
    """
    named = [*study.columns, study.target.column]
    trimmed = {
        name: trimmed_sql(lake_name(name)) if lake_name(name) in present else "CAST(NULL AS string)"
        for name in named
    }
    spellings = {name: study.spelling(name, hospital, marks=True) for name in named}
    read = {name: read_sql(name, spelling) for name, spelling in spellings.items()}
    known = {name: known_sql(name, spelling) for name, spelling in spellings.items()}
    if study.id:
        trimmed[study.id] = trimmed_sql(lake_name(study.id))
        read[study.id] = quoted(study.id)
        known[study.id] = f"nullif({quoted(study.id)}, '')"
    return [trimmed, read, known]


def typed_sql(name: str, column: Column) -> str:
    """SQL of a column's typed value, from its known text; null where it is not of its type."""
    text = quoted(name)
    if column.type == "category":
        return text
    if column.type == "flag":
        return f"try_cast({text} AS int)"
    number = f"if({text} RLIKE {literal(NUMBER)}, try_cast({text} AS double), NULL)"
    return number if column.type == "number" else f"try_cast(floor({number}) AS int)"


def rules_of(study: Study, hospital: str) -> list[Rule]:
    """List the rules of one hospital's rows, in the order of the columns.

    Args:
        study: Types, ranges, categories, target.
        hospital: At some hospitals a column may be missing.
    """
    rules: list[Rule] = []
    if study.id:
        of_id = quoted(study.id)
        rules.append(Rule(f"{study.id}: missing", study.id, f"{of_id} IS NULL"))
        rules.append(Rule(f"{study.id}: duplicate", study.id, f"{of_id} IS NOT NULL AND _nth > 1"))
    for name, column in study.columns.items():
        rules += _column_rules(name, column, hospital)
    target = quoted(study.target.column)
    values = any_of([*study.target.positive, *study.target.negative])
    rules.append(Rule(f"{study.target.column}: missing", study.target.column, f"{target} IS NULL"))
    rules.append(
        Rule(f"{study.target.column}: value", study.target.column, f"{target} NOT IN {values}")
    )
    return rules


def _column_rules(name: str, column: Column, hospital: str) -> list[Rule]:
    text = quoted(name)
    rules = []
    if column.max_missing == 0 and hospital not in column.optional_at:
        rules.append(Rule(f"{name}: missing", name, f"{text} IS NULL"))
    if column.type == "category":
        rules.append(Rule(f"{name}: category", name, f"{text} NOT IN {any_of(column.categories)}"))
    elif column.type == "flag":
        rules.append(Rule(f"{name}: type", name, f"{text} NOT IN ('0', '1')"))
    else:
        low, high = column.range or (float("-inf"), float("inf"))
        value = f"try_cast({text} AS double)"
        of_type = f"{text} RLIKE {literal(NUMBER)}"
        whole = ""
        if column.type == "integer":
            # Beyond 2**53 every double is whole, and the engines round it differently.
            whole = f" OR (abs({value}) < {2.0**53!r}D AND {value} != floor({value}))"
        rules.append(Rule(f"{name}: type", name, f"NOT ({of_type}){whole}"))
        outside = f"NOT ({value} BETWEEN {low!r}D AND {high!r}D)"
        rules.append(Rule(f"{name}: range", name, f"if({of_type}, {outside}, false)"))
    return rules


def category_sql(name: str, column: Column) -> str:
    """SQL of a category as the study spells it (``1.0`` in the study, ``1`` in the table)."""
    text = quoted(name)
    return " ".join(
        ["CASE"]
        + [
            f"WHEN {text} = {any_of([category])[1:-1]} THEN {literal(category)}"
            for category in column.categories
        ]
        + ["END"]
    )


def silver_definition(study: Study) -> Definition:
    """Silver's columns, and what Delta itself refuses in it."""
    kinds = {"number": "double", "integer": "integer", "flag": "integer", "category": "string"}
    columns = {
        "patient": ("string", False),
        **{n: (kinds[c.type], c.may_be_missing) for n, c in study.columns.items()},
        "label": ("integer", False),
    }
    conditions = ["`label` IN (0, 1)", "`patient` != ''"]
    for name, column in study.columns.items():
        of = quoted(name)
        if column.range is not None:
            low, high = column.range
            conditions.append(f"({of} IS NULL OR ({of} >= {low!r} AND {of} <= {high!r}))")
        elif column.type == "flag":
            conditions.append(f"({of} IS NULL OR {of} IN (0, 1))")
        elif not any("\\" in category for category in column.categories):
            # The engines differ in what a backslash means in a constraint.
            texts = ", ".join("'" + c.replace("'", "''") + "'" for c in column.categories)
            conditions.append(f"({of} IS NULL OR {of} IN ({texts}))")
    constraint = " AND ".join(conditions)
    text = json.dumps([columns, constraint])
    return Definition(columns, constraint, hashlib.sha256(text.encode()).hexdigest()[:16])
