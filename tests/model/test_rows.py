from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from tasks.errors import DataError
from tasks.model.rows import Rows, concatenate, load_rows
from tasks.study import Study


def table(study: Study, rows: Rows) -> pa.Table:
    columns = {"patient": rows.patients, "part": list(rows.part), "label": rows.y.astype(int)}
    for place, feature in enumerate(study.features):
        column = rows.x[:, place]
        columns[feature.name] = pa.array(column, mask=np.isnan(column))
    return pa.table(columns)


@pytest.fixture
def uri(tmp_path: Path, study: Study, made_up: Rows) -> str:
    shuffled = made_up.take(np.random.default_rng(1).permutation(len(made_up)))
    write_deltalake(tmp_path / "gold", table(study, shuffled))
    return str(tmp_path / "gold")


def test_rows_come_back_sorted_with_gaps(uri: str, study: Study, made_up: Rows) -> None:
    rows = load_rows(uri, study)
    assert rows.patients == made_up.patients
    np.testing.assert_array_equal(rows.x, made_up.x)
    np.testing.assert_array_equal(rows.y, made_up.y)
    assert rows.x.dtype == np.float64
    assert rows.y.dtype == np.float32
    parts = [rows.of(part) for part in ("train", "validation", "test")]
    assert sorted(concatenate(parts).patients) == rows.patients
    with pytest.raises(ValueError, match="no part"):
        rows.of("tests")


def test_only_the_parts_asked_for_are_read(uri: str, study: Study, made_up: Rows) -> None:
    learning = load_rows(uri, study, parts=("train", "validation"))
    assert set(learning.part) == {"train", "validation"}
    test = load_rows(uri, study, parts=("test",))
    np.testing.assert_array_equal(test.x, made_up.of("test").x)
    assert len(learning) + len(test) == len(made_up)


def test_an_old_version_is_read_as_it_was(uri: str, study: Study, made_up: Rows) -> None:
    write_deltalake(uri, table(study, made_up.take(np.arange(10))), mode="overwrite")
    assert len(load_rows(uri, study)) == 10
    assert len(load_rows(uri, study, version=0)) == len(made_up)
    with pytest.raises(DataError, match="version 7"):
        load_rows(uri, study, version=7)


def test_a_table_that_is_not_the_studys_is_refused(
    tmp_path: Path, study: Study, made_up: Rows
) -> None:
    good = table(study, made_up)
    age = good.column_names.index("age")
    flag = good.column_names.index("hypertension")
    twice = pa.concat_tables([good, good.slice(0, 1)])
    bad = {
        "lacks ..age": good.drop_columns("age"),
        "has ..extra": good.append_column("extra", good["age"]),
        "an id twice": twice,
        "age must be finite": good.set_column(age, "age", pa.array([np.inf] * len(made_up))),
        "hypertension must be 0 or 1": good.set_column(
            flag, "hypertension", pa.array([0.5] * len(made_up))
        ),
    }
    for place, (message, wrong) in enumerate(bad.items()):
        write_deltalake(tmp_path / str(place), wrong)
        with pytest.raises(DataError, match=message):
            load_rows(str(tmp_path / str(place)), study)


def test_an_absent_table_says_what_to_run(tmp_path: Path, study: Study) -> None:
    with pytest.raises(DataError, match="Run the step features"):
        load_rows(str(tmp_path / "nothing"), study)
