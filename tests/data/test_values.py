"""One rule for reading a raw value, in Python and in SQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.data.values import known_sql, literal, read_sql, trimmed_sql
from tasks.lake.engine.local import LocalEngine
from tasks.lake.engine.spark import SparkEngine
from tasks.settings import Settings
from tasks.study import canonical
from tasks.study.base import FLAGS
from tasks.study.spelling import Spelling, spelling_of

TEXTS = [
    "\u00a01.0\n",
    "\ufeffa\u3000",
    "7\u2028",
    "1",
    "1.0",
    " 1.",
    "01.0",
    "-0.0",
    "1e3",
    "a",
    "",
    "+5.00",
    "1.50",
    " a b ",
    "1.0.0",
    ".",
    "YES",
    "no ",
    "True",
    "Group A",
    "group\u00a0 a",
    "GROUP  B",
    "n/a",
    "N/A",
    "> 89",
    ">  89.0",
    "1,5",
    "1.234,5",
    "1.234",
    "12.34",
    "1,234.5",
    "1,234,567",
    "12,34",
    "1 234,5",
    "1\u202f234",
    "1'234",
    "-1.234.567,",
    ",5",
    "1.000",
    "10.000",
    "99,0",
    "> 8,5",
    "1,0",
    "ΆΝΔΡΑΣ",
    "istanbul",
    "İSTANBUL",
    "ß",
]
SPELLINGS = {
    "nothing": spelling_of([("", None)]),
    "flags": spelling_of([("", None), *FLAGS.items()]),
    "categories": spelling_of([("Group A", "Group A"), ("group B", "group B"), ("n/a", None)]),
    "told apart by case": spelling_of([("a", "low"), ("A", "high"), ("N/A", None)]),
    "codes": spelling_of([("> 89", "90"), ("1", "one"), ("", None)]),
    "decimal comma": spelling_of([("", None)], (",", "")),
    "comma and points": spelling_of([("", None)], (",", ".")),
    "point and commas": spelling_of([("", None)], (".", ",")),
    "comma and blanks": spelling_of([("", None)], (",", " ")),
    "point and apostrophes": spelling_of([("", None), ("n/a", None)], (".", "'")),
    "markers and marks": spelling_of([("99", None), ("> 8,5", "9"), ("1.0", "one")], (",", ".")),
    "letters of many": spelling_of([("Άνδρας", "m"), ("İstanbul", "city"), ("ẞ", "s")]),
}


@pytest.mark.parametrize(
    ("spelling", "text", "expected"),
    [
        ("decimal comma", "1,5", "1.5"),
        ("decimal comma", "12.34", "12.34"),
        ("comma and points", "-1.234.567,", "-1234567"),
        ("comma and points", "1.234", "1234"),
        ("comma and points", "12.34", "not a number"),
        ("point and commas", "1,234,567", "1234567"),
        ("point and commas", "12,34", "12,34"),
        ("comma and blanks", "1\u202f234", "1234"),
        ("point and apostrophes", "1\u2019234.5", "1234.5"),
        ("told apart by case", "A", "high"),
        ("told apart by case", "n/a", "n/a"),
        ("categories", "GROUP\u00a0a ", "Group A"),
        ("codes", "> 89", "90"),
        ("comma and points", "1.000", "1000"),
        ("comma and points", "1.000,50", "1000.50"),
        ("decimal comma", "1,0", "1"),
        ("markers and marks", "99,0", None),
        ("markers and marks", "> 8,5", "9"),
        ("markers and marks", "1,0", "one"),
        ("letters of many", "ΆΝΔΡΑΣ", "m"),
        ("letters of many", "ISTANBUL", "city"),
        ("flags", "Y", "1"),
    ],
)
def test_a_text_is_read_as_its_spelling_says(
    spelling: str, text: str, expected: str | None
) -> None:
    assert SPELLINGS[spelling].known(text) == expected


@pytest.mark.parametrize("name", ["local", pytest.param("spark", marks=pytest.mark.slow)])
def test_python_and_sql_read_a_value_alike(tmp_path: Path, name: str) -> None:
    settings = Settings(home=tmp_path)
    rows = " UNION ALL ".join(
        f"SELECT {i} AS place, {literal(text)} AS value" for i, text in enumerate(TEXTS)
    )
    with LocalEngine("h", "1g") if name == "local" else SparkEngine(settings, "h", 1) as engine:
        engine.view("given", rows)
        engine.view("trimmed", f"SELECT place, {trimmed_sql('value')} AS value FROM given")
        numbered = list(enumerate(SPELLINGS.values()))
        readable = ", ".join(f"{read_sql('value', spelling)} AS s{i}" for i, spelling in numbered)
        engine.view("readable", f"SELECT place, {readable} FROM trimmed")
        found = ", ".join(f"{known_sql(f's{i}', spelling)} AS s{i}" for i, spelling in numbered)
        read = engine.rows(f"SELECT {found} FROM readable ORDER BY place")
    plain = Spelling({}, folds=False)
    assert [plain.known(text) for text in TEXTS] == [canonical(text) for text in TEXTS]
    for i, (spelled, spelling) in enumerate(SPELLINGS.items()):
        assert [(spelled, t, row[f"s{i}"]) for t, row in zip(TEXTS, read, strict=True)] == [
            (spelled, text, spelling.known(text)) for text in TEXTS
        ]
