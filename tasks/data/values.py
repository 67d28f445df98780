"""How a raw value is read: one rule in Python and in SQL, so that both agree.

Hospitals write the same code as ``1``, ``1.0`` or `` 1 ``. A value is compared in its canonical
form: trimmed, and a whole number without its decimals.
"""

from __future__ import annotations

from collections.abc import Iterable

from tasks.study.base import BLANKS, canonical
from tasks.study.spelling import NOT_A_NUMBER, THOUSANDS, Spelling

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


def canonical_sql(trimmed: str) -> str:
    """``canonical`` of a column without blanks around its texts, as SQL."""
    text = quoted(trimmed)
    whole = f"{text} RLIKE '^[+-]?[0-9]+[.]0*$'"
    return f"if({whole}, regexp_replace({text}, '[.]0*$', ''), {text})"


def known_sql(canonical: str, spelling: Spelling) -> str:
    """``Spelling.known`` of a column of canonical texts, as SQL."""
    text = key = quoted(canonical)
    if spelling.folds and any(word != word.upper() for word in spelling.words):
        key = f"lower({key})"
    if spelling.folds and any(" " in word for word in spelling.words):
        key = f"regexp_replace({key}, {literal(f'[{BLANKS}]+')}, ' ')"
    by_meaning: dict[str | None, list[str]] = {}
    for word, meaning in spelling.words.items():
        by_meaning.setdefault(meaning, []).append(literal(word))
    cases = " ".join(
        f"WHEN {key} IN ({', '.join(words)}) THEN {'NULL' if meaning is None else literal(meaning)}"
        for meaning, words in by_meaning.items()
    )
    return f"CASE {cases} ELSE {_number_sql(text, spelling) if spelling.decimal else text} END"


def _number_sql(text: str, spelling: Spelling) -> str:
    """``Spelling``'s reading of a number's marks, as SQL."""
    plain = text
    if spelling.decimal == "," and spelling.thousands == ".":
        plain = f"if(instr({text}, '.') > 0, {literal(NOT_A_NUMBER)}, {text})"
    if spelling.thousands:
        mark = literal(THOUSANDS[spelling.thousands])
        grouped = f"{text} RLIKE {literal(spelling.grouped)}"
        plain = f"if({grouped}, regexp_replace({text}, {mark}, ''), {plain})"
    return plain if spelling.decimal == "." else f"replace({plain}, ',', '.')"
