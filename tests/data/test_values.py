"""One rule for reading a raw value, in Python and in SQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.data.values import canonical_sql, literal
from tasks.lake.engine.local import LocalEngine
from tasks.lake.engine.spark import SparkEngine
from tasks.settings import Settings
from tasks.study import canonical

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
]


@pytest.mark.parametrize("name", ["local", pytest.param("spark", marks=pytest.mark.slow)])
def test_python_and_sql_read_a_value_alike(tmp_path: Path, name: str) -> None:
    settings = Settings(home=tmp_path)
    rows = " UNION ALL ".join(
        f"SELECT {i} AS place, {literal(text)} AS value" for i, text in enumerate(TEXTS)
    )
    with LocalEngine("h") if name == "local" else SparkEngine(settings, "h", 1) as engine:
        engine.view("given", rows)
        read = engine.rows(f"SELECT {canonical_sql('value')} AS found FROM given ORDER BY place")
    assert [row["found"] for row in read] == [canonical(text) for text in TEXTS]
