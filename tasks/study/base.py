"""Types common to all parts of a study's model."""

from __future__ import annotations

import re
from typing import Annotated, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


class Part(BaseModel):
    """A part of a study: frozen; unknown keys, NaN and infinity are rejected."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
"""A name that is also used for a folder, a bucket's suffix and a pod's label."""


RESERVED_NAMES = frozenset({"admin", "consortium", "pool"})
"""Names of the store's other keys: owners that are no hospital, and the administrator."""
YAML_WORDS = frozenset({"n", "y", "no", "on", "off", "yes", "true", "false", "null"})
"""Words that some YAML parsers do not read as text; names occur in many YAML files."""


class PaddedNumber(int):
    """A number that was written with zeros before it, which a number does not keep."""


def _texts(value: object) -> object:
    """Accept numbers as text; values of which YAML keeps another spelling need quotes."""
    if not isinstance(value, list):
        return value
    for item in value:
        if isinstance(item, bool) or item is None:
            raise ValueError("true, false and null are not text: put the value in quotes")
        if isinstance(item, PaddedNumber):
            raise ValueError(f"YAML reads the code 0...{item} as {item}: put it in quotes")
    return [str(item) for item in value]


Texts = Annotated[list[str], BeforeValidator(_texts)]
"""Values as they are written in a table."""


def _codes(value: object) -> object:
    """Accept what ``_texts`` does, as keys and as values."""
    if not isinstance(value, dict):
        return value
    pairs = (_texts(list(pair)) for pair in value.items())
    return dict(cast("list[list[str]]", list(pairs)))


Codes = Annotated[dict[str, str], BeforeValidator(_codes)]
"""Values as they are written in a table, and as the study writes them."""
FLAGS = {"0": "0", "no": "0", "n": "0", "false": "0", "f": "0"} | {
    "1": "1",
    "yes": "1",
    "y": "1",
    "true": "1",
    "t": "1",
}
"""Spellings of a flag, and what they mean."""


BLANKS = " \t\n\v\f\r\x85\u00a0\u2007\u2028\u2029\u202f\u3000\ufeff"
"""What may stand around a value and says nothing, in Python and in every engine's SQL."""


def canonical(text: str) -> str:
    """The form for comparing values: trimmed, and a whole number without decimals."""
    trimmed = text.strip(BLANKS)
    found = re.fullmatch(r"([+-]?[0-9]+)[.]0*", trimmed)
    return found.group(1) if found else trimmed


def folded(text: str) -> str:
    """The canonical form without case, and with one space where blanks stand between words."""
    return fold(canonical(text))


def fold(text: str) -> str:
    """A text without case, and with one space where blanks stand between words."""
    # Programs differ in how they lower a dotted I and a sigma at the end of a word.
    lowered = text.replace("\u0130", "i").lower().replace("\u03c2", "\u03c3")
    return re.sub(f"[{BLANKS}]+", " ", lowered)


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
