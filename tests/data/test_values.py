"""One rule for reading a raw value, in Python and in Spark's SQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.data.values import canonical_sql
from tasks.lake.session import spark_session
from tasks.settings import Settings
from tasks.study import canonical

pytestmark = pytest.mark.slow

TEXTS = ["1", "1.0", " 1.", "01.0", "-0.0", "1e3", "a", "", "+5.00", "1.50", " a b ", "1.0.0", "."]


def test_python_and_sql_read_a_value_alike(tmp_path: Path) -> None:
    spark = spark_session(Settings.from_environment({"FEDRISK_HOME": str(tmp_path)}))
    rows = spark.createDataFrame(list(enumerate(TEXTS)), "place int, value string")
    read = rows.selectExpr("place", f"{canonical_sql('value')} as found").orderBy("place")
    assert [row.found for row in read.collect()] == [canonical(text) for text in TEXTS]
