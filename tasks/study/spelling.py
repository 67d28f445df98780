"""How the texts of a table are read as a study's values: its codes, markers, flags and marks.

One rule for the steps, which state it as SQL (``tasks/data/rules.py``), and for the model, which
reads a caller's rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.study.base import BLANKS, canonical, fold, folded

NUMBER = r"^[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?$"
"""What counts as a number: no ``NaN``, no ``inf``, no Java suffix, a point for the decimals."""
NOT_A_NUMBER = "not a number"
"""What is known of a text in which the marks for decimals and thousands contradict each other."""
THOUSANDS = {".": "[.]", ",": ",", "'": "['\u2019]", " ": "[ \u00a0\u2007\u202f]"}
"""A mark between thousands, and the characters that stand for it."""
PLAIN = (".", "")
"""The marks of a number that needs no reading."""


@dataclass(frozen=True)
class Spelling:
    """How one column's texts are read.

    Attributes:
        words: What a text means, by its canonical form, folded if ``folds``; None where it means
            "not known".
        folds: Whether case and inner blanks do not matter.
        decimal: What stands before decimals.
        thousands: What may stand between thousands.
    """

    words: Mapping[str, str | None]
    folds: bool
    decimal: str = "."
    thousands: str = ""

    def known(self, text: str) -> str | None:
        """What a text says: the study's value or the text itself, in canonical form."""
        key, read = self._read(text)
        return read if key is None else self.words[key]

    def meant(self, text: str) -> str | None:
        """What a text means if it is one of the words; None where it is none."""
        key, _ = self._read(text)
        return None if key is None else self.words[key]

    def _read(self, text: str) -> tuple[str | None, str]:
        """The word that a text is, or None, and the text in the study's notation."""
        trimmed = text.strip(BLANKS)
        read = canonical(self._number(trimmed))
        # As it stands first: a code may look like a number with marks.
        keys = (fold(each) if self.folds else each for each in (trimmed, read))
        return next((key for key in keys if key in self.words), None), read

    @property
    def marked(self) -> bool:
        """Whether numbers are written with marks of their own."""
        return (self.decimal, self.thousands) != PLAIN

    @property
    def grouped(self) -> str:
        """The pattern of a number with marks between its thousands."""
        mark, decimal = THOUSANDS[self.thousands], re.escape(self.decimal)
        return f"^[+-]?[0-9]{{1,3}}({mark}[0-9]{{3}})+({decimal}[0-9]*)?$"

    def _number(self, text: str) -> str:
        """A number in the study's notation; any other text as it is."""
        if self.thousands and re.search(self.grouped, text):
            return re.sub(THOUSANDS[self.thousands], "", text).replace(self.decimal, ".")
        if self.thousands == "." and "." in text and re.search(NUMBER, text):
            return NOT_A_NUMBER
        with_point = text.replace(self.decimal, ".")
        return with_point if re.search(NUMBER, with_point) else text


def spelling_of(
    words: Iterable[tuple[str, str | None]], marks: tuple[str, str] = PLAIN
) -> Spelling:
    """Make a spelling that folds where no two texts are told apart by case or blanks alone.

    Args:
        words: Texts and what they mean; of a text that stands there twice the last counts.
        marks: What stands before decimals and between thousands.
    """
    exact = {canonical(text): meaning for text, meaning in words}
    loose: dict[str, set[str | None]] = {}
    for text, meaning in exact.items():
        loose.setdefault(folded(text), set()).add(meaning)
    folds = all(len(meanings) == 1 for meanings in loose.values())
    if folds:
        exact = {folded(text): meaning for text, meaning in exact.items()}
    return Spelling(exact, folds, *marks)


def words_of(
    missing: Iterable[str], values: Mapping[str, str], codes: Mapping[str, str]
) -> list[tuple[str, str | None]]:
    """List a column's words.

    Args:
        missing: Markers of a value that is not known.
        values: Texts that are values, and which.
        codes: Texts and the values, or markers, that they stand for; a code replaces a marker or
            value that is spelled alike.
    """
    words: list[tuple[str, str | None]] = [("", None), *((marker, None) for marker in missing)]
    words += values.items()
    plain = spelling_of(words)
    replaced = set(map(folded, codes))
    kept = [(text, meaning) for text, meaning in words if folded(text) not in replaced]
    return [*kept, *((code, plain.known(value)) for code, value in codes.items())]
