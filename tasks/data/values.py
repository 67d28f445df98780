"""How a raw value is read: one rule in Python and in SQL, so that both agree.

Hospitals write the same code as ``1``, ``1.0`` or `` 1 ``. A value is compared in its canonical
form: trimmed, and a whole number without its decimals.
"""

from __future__ import annotations

from collections.abc import Iterable

from tasks.study.base import BLANKS, canonical
from tasks.study.spelling import NOT_A_NUMBER, THOUSANDS, Spelling
from tasks.study.spelling import NUMBER as NUMBER


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


def canonical_sql(text: str) -> str:
    """``canonical`` of SQL of a text without blanks around it, as SQL."""
    whole = f"{text} RLIKE '^[+-]?[0-9]+[.]0*$'"
    return f"if({whole}, regexp_replace({text}, '[.]0*$', ''), {text})"


def read_sql(trimmed: str, spelling: Spelling) -> str:
    """A column of trimmed texts with its numbers in the study's notation, canonical, as SQL."""
    text = quoted(trimmed)
    if not spelling.marked:
        return canonical_sql(text)
    words = ", ".join(map(literal, spelling.words)) or "NULL"
    number = f"coalesce({number_sql(text, spelling)}, '')"
    return f"if({_key_sql(text, spelling)} IN ({words}), {text}, {canonical_sql(number)})"


def known_sql(read: str, spelling: Spelling) -> str:
    """``Spelling.known`` of a column that ``read_sql`` has made, as SQL."""
    text = quoted(read)
    by_meaning: dict[str | None, list[str]] = {}
    for word, meaning in spelling.words.items():
        by_meaning.setdefault(meaning, []).append(literal(word))
    key = _key_sql(text, spelling)
    cases = " ".join(
        f"WHEN {key} IN ({', '.join(words)}) THEN {'NULL' if meaning is None else literal(meaning)}"
        for meaning, words in by_meaning.items()
    )
    return f"CASE {cases} ELSE {text} END"


def _key_sql(text: str, spelling: Spelling) -> str:
    """``fold`` of a text where the spelling folds, as SQL; without the parts that no word needs."""
    if not spelling.folds:
        return text
    if any(word != word.upper() for word in spelling.words):
        text = f"replace(lower(replace({text}, '\u0130', 'i')), '\u03c2', '\u03c3')"
    if any(" " in word for word in spelling.words):
        text = f"regexp_replace({text}, {literal(f'[{BLANKS}]+')}, ' ')"
    return text


def number_sql(text: str, spelling: Spelling) -> str:
    """``Spelling``'s reading of a number's marks, as SQL."""
    number, cases = literal(NUMBER), []
    with_point = text if spelling.decimal == "." else f"replace({text}, ',', '.')"
    if spelling.thousands:
        mark = literal(THOUSANDS[spelling.thousands])
        plain = f"regexp_replace({text}, {mark}, '')"
        plain = plain if spelling.decimal == "." else f"replace({plain}, ',', '.')"
        cases.append(f"WHEN {text} RLIKE {literal(spelling.grouped)} THEN {plain}")
    if spelling.thousands == ".":
        wrong = f"instr({text}, '.') > 0 AND {text} RLIKE {number}"
        cases.append(f"WHEN {wrong} THEN {literal(NOT_A_NUMBER)}")
    cases.append(f"WHEN {with_point} RLIKE {number} THEN {with_point}")
    return f"CASE {' '.join(cases)} ELSE {text} END"
