"""Raw columns, as a clinician's system gives them, to the model's features.

The registry's model takes raw columns; this gives it the features that the Spark step makes of
the same values. One difference is meant: the step sets a bad row aside, here it is an error, for
nobody would notice a patient missing from an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.study import Column, Study, canonical
from tasks.study.spelling import Spelling

if TYPE_CHECKING:
    import pandas as pd

# What Spark's step takes for a number (tasks/data/values.py, which this
# room may not import); a test compares the two on the same values.
NUMBER = re.compile(r"[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?")
SEVERAL = "one of several codes"
"""What is known of a number of which a reader of CSV may have dropped zeros: no word of a study."""


def raw_to_features(frame: pd.DataFrame, study: Study) -> NDArray[np.float64]:
    """Make the feature matrix.

    A column that may be missing may also be absent; other columns, such as the id or the target,
    are not looked at.

    Args:
        frame: One row a patient, the study's raw columns as text, numbers or flags.
        study: Whose features are made.

    Returns:
        Shape (n, d) in the order of ``study.features``; NaN where a numeric feature is missing.

    Raises:
        DataError: A column is absent, or a value is missing where none may be, of the wrong type,
            out of range or of no known category; all columns' faults in one message.
    """
    faults: list[str] = []
    texts: dict[str, NDArray[np.object_]] = {}
    values: dict[str, NDArray[np.float64]] = {}
    for name, column in study.columns.items():
        if name in frame.columns:
            spelling = study.spelling(name)
            codes = _without_zeros(spelling) if column.type in ("category", "flag") else {}
            texts[name] = _texts(frame[name], spelling, codes)
        elif column.may_be_missing:
            texts[name] = np.full(len(frame), None, dtype=object)
        else:
            faults.append(f"column {name} is absent")
            continue
        values[name], found = _parsed(name, column, texts[name])
        faults += found
    if faults:
        raise DataError(f"rows of study {study.name}: " + "; ".join(faults) + ".")
    x = np.empty((len(frame), len(study.features)), dtype=np.float64)
    for place, feature in enumerate(study.features):
        value = values[feature.column]
        if feature.kind == "numeric":
            x[:, place] = value
        elif feature.kind == "binary":
            x[:, place] = np.nan_to_num(value, nan=0.0)
        elif feature.kind == "missing":
            x[:, place] = np.isnan(value)
        else:
            x[:, place] = value == study.columns[feature.column].categories.index(
                feature.category or ""
            )
    return x


def _texts(series: pd.Series, spelling: Spelling, codes: Mapping[str, str]) -> NDArray[np.object_]:
    """What is known of each value, None where nothing is."""
    found = np.full(len(series), None, dtype=object)
    known = ~series.isna().to_numpy()
    for place in np.flatnonzero(known):
        value = series.iloc[place]
        flag = isinstance(value, (bool, np.bool_))
        text = str(int(value) if flag else value)
        if not flag and not isinstance(value, str):
            text = codes.get(canonical(text), text)
        found[place] = spelling.known(text)
    return found


def _without_zeros(spelling: Spelling) -> dict[str, str]:
    """Codes such as 01 by the number that a reader of CSV takes each for.

    A number that may be several with different meanings is none of the study's words.
    """
    codes: dict[str, dict[str, str | None]] = {}
    for word, meaning in spelling.words.items():
        if word.isascii() and word.isdigit():
            codes.setdefault(str(int(word)), {})[word] = meaning
    return {
        number: next(iter(words)) if len(set(words.values())) == 1 else SEVERAL
        for number, words in codes.items()
        if [*words] != [number]
    }


def _parsed(
    name: str, column: Column, texts: NDArray[np.object_]
) -> tuple[NDArray[np.float64], list[str]]:
    """Values as numbers (a category as its place in the list), and what is wrong, with counts."""
    known = np.array([text is not None for text in texts], dtype=bool)
    values = np.full(len(texts), np.nan)
    faults: list[str] = []
    missing = int((~known).sum())
    if missing and not column.may_be_missing:
        faults.append(f"column {name} is missing in {missing} rows and may not be")
    if column.type in ("flag", "category"):
        places = {canonical(text): float(i) for i, text in enumerate(column.categories)}
        codes = {"0": 0.0, "1": 1.0} if column.type == "flag" else places
        values[known] = [codes.get(text, np.nan) for text in texts[known]]
        unknown = int(np.isnan(values[known]).sum())
        if unknown:
            allowed = ", ".join(
                ["no", "yes", "0", "1"] if column.type == "flag" else column.categories
            )
            faults.append(f"column {name} is none of {allowed} in {unknown} rows")
        return values, faults
    values[known] = [_number(text) for text in texts[known]]
    wrong = known & ~np.isfinite(values)
    if column.type == "integer":
        wrong |= known & (values != np.floor(values))
    if wrong.any():
        kind = "a whole number" if column.type == "integer" else "a number"
        faults.append(f"column {name} is not {kind} in {int(wrong.sum())} rows")
    low, high = column.range or (-np.inf, np.inf)
    with np.errstate(invalid="ignore"):
        outside = int(((values < low) | (values > high))[~wrong].sum())
    if outside:
        faults.append(f"column {name} is outside {low:g}..{high:g} in {outside} rows")
    return values, faults


def _number(text: str) -> float:
    return float(text) if NUMBER.fullmatch(text) else float("nan")
