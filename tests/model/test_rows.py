from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from tasks.errors import DataError
from tasks.model.rows import PARTS, Rows, concatenate, load_rows
from tasks.study import Study


def table(study: Study, rows: Rows, order: np.ndarray | None = None) -> pa.Table:
    """Gold of some rows, whose patients have the order that they have here."""
    patients = [f"p{i:04d}" for i in range(len(rows))]
    parts = [PARTS[place] for place in rows.part]
    columns = {"patient": patients, "part": parts, "label": rows.y.astype(int)}
    for place, feature in enumerate(study.features):
        column = rows.x[:, place]
        columns[feature.name] = pa.array(column, mask=np.isnan(column))
    found = pa.table(columns)
    return found if order is None else found.take(order)


@pytest.fixture
def uri(tmp_path: Path, study: Study, made_up: Rows) -> str:
    shuffled = table(study, made_up, np.random.default_rng(1).permutation(len(made_up)))
    write_deltalake(tmp_path / "gold", shuffled)
    return str(tmp_path / "gold")


def test_rows_come_back_by_part_and_id_with_gaps(uri: str, study: Study, made_up: Rows) -> None:
    rows = load_rows(uri, study)
    assert rows.x.dtype == np.float64
    assert rows.y.dtype == np.float32
    assert rows.x.flags.c_contiguous
    parts = [rows.of(part) for part in PARTS]
    for part, name in zip(parts, PARTS, strict=True):
        expected = made_up.of(name)
        np.testing.assert_array_equal(part.x, expected.x)
        np.testing.assert_array_equal(part.y, expected.y)
        assert np.shares_memory(part.x, rows.x)
    np.testing.assert_array_equal(concatenate(parts).x, rows.x)
    with pytest.raises(ValueError, match="no part"):
        rows.of("tests")


def test_only_the_parts_asked_for_are_read(uri: str, study: Study, made_up: Rows) -> None:
    learning = load_rows(uri, study, parts=("train", "validation"))
    assert [PARTS[place] for place in np.unique(learning.part)] == ["train", "validation"]
    test = load_rows(uri, study, parts=("test",))
    np.testing.assert_array_equal(test.x, made_up.of("test").x)
    assert len(learning) + len(test) == len(made_up)


@pytest.mark.parametrize("widest", [256, 1])
def test_ids_are_ordered_as_texts(
    tmp_path: Path, study: Study, made_up: Rows, monkeypatch: pytest.MonkeyPatch, widest: int
) -> None:
    monkeypatch.setattr("tasks.model.rows.WIDEST", widest)
    ids = sorted(["z", "\u00e9", "Z", "zz", "\U0001f600", "\uffee", "1", "10", "2"])
    gold = table(study, made_up, np.arange(len(ids)))
    gold = gold.set_column(1, "part", pa.array(["train"] * len(ids)))
    gold = gold.set_column(0, "patient", pa.array(ids))
    write_deltalake(tmp_path / "gold", gold.take(np.random.default_rng(2).permutation(len(ids))))
    rows = load_rows(str(tmp_path / "gold"), study)
    np.testing.assert_array_equal(rows.x, made_up.x[: len(ids)])


def test_an_old_version_is_read_as_it_was(uri: str, study: Study, made_up: Rows) -> None:
    write_deltalake(uri, table(study, made_up, np.arange(10)), mode="overwrite")
    assert len(load_rows(uri, study)) == 10
    assert len(load_rows(uri, study, version=0)) == len(made_up)
    with pytest.raises(DataError, match="version 7"):
        load_rows(uri, study, version=7)


def test_a_table_that_is_not_the_studys_is_refused(
    tmp_path: Path, study: Study, made_up: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = table(study, made_up)
    age = good.column_names.index("age")
    flag = good.column_names.index("hypertension")
    twice = pa.concat_tables([good, good.slice(0, 1)])
    parts = good["part"].to_pylist()
    # Ids are compared two at a time, and this one twice over a border.
    monkeypatch.setattr("tasks.model.rows.COMPARED", 2)
    ids = good["patient"].to_pylist()
    bad = {
        "part is none of train, validation, test in 2 rows": good.set_column(
            1, "part", pa.array([None, "exam", *parts[2:]])
        ),
        "holds nulls": good.set_column(0, "patient", pa.array([None, *ids[1:]])),
        "nulls or an id twice": good.set_column(0, "patient", pa.array([*ids[:2], *ids[1:-1]])),
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


@pytest.mark.parametrize("harm", ["cut", "overwritten", "gone"])
def test_a_damaged_table_is_told(uri: str, study: Study, harm: str) -> None:
    [file] = Path(uri).glob("*.parquet")
    content = file.read_bytes()
    kept = content[: len(content) // 2]
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(kept if harm == "cut" else content[:8] + b"\0" * len(kept) + kept)
    with pytest.raises(DataError, match="damaged or gone") as told:
        load_rows(uri, study)
    assert uri in str(told.value)
