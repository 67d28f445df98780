"""How a raw value is read: one rule in Python and in SQL, so that both agree.

Hospitals write the same code as ``1``, ``1.0`` or `` 1 ``. A value is compared in its canonical
form: trimmed, and a whole number without its decimals.
"""

from __future__ import annotations

from collections.abc import Iterable

from tasks.study.base import BLANKS, canonical

NUMBER = r"^[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?$"
"""What counts as a number: no ``NaN``, no ``inf``, no Java suffix, a point for the decimals."""


def quoted(name: str) -> str:
    """A column's name for SQL."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """A string literal for SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def any_of(values: Iterable[str]) -> str:
    """The list of an ``IN``, from values in canonical form."""
    return "(" + ", ".join(sorted({literal(canonical(value)) for value in values})) + ")"


def trimmed_sql(column: str) -> str:
    """A column's text without the blanks around it."""
    text = quoted(column)
    # To look for each of the blanks costs more than all the rest, and few values have any.
    ends = (f"{end}({text}, 1) BETWEEN '!' AND '~'" for end in ("left", "right"))
    return f"if({' AND '.join(ends)}, {text}, trim(BOTH {literal(BLANKS)} FROM {text}))"


def canonical_sql(column: str) -> str:
    """``canonical`` of a column, as SQL."""
    text = trimmed_sql(column)
    whole = f"{text} RLIKE '^[+-]?[0-9]+[.]0*$'"
    return f"if({whole}, regexp_replace({text}, '[.]0*$', ''), {text})"


def known_sql(column: str, missing: Iterable[str]) -> str:
    """A column's canonical text, null where empty or one of the markers that mean "not known"."""
    text = canonical_sql(column)
    return f"if({text} IN {any_of(['', *missing])}, NULL, {text})"
