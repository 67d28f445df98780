"""Every kind of file reaches bronze as text, and what the study does not name does no harm."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tasks.data.one_table import open_table
from tasks.data.source_rows import column_rows
from tasks.errors import DataError
from tasks.run.manifest import Manifest
from tasks.settings import Settings
from tasks.study import read_study
from tests.data.conftest import HEADER, House, by_patient, patients, read, text_of


def texts(values: Any) -> list[str | None]:
    """A column's values as bronze holds them."""
    from pyarrow import dataset

    table = dataset.dataset(pa.table({"a": values}))
    found: list[str | None] = column_rows(table, {"a": "a"}, "here").read_all()["a"].to_pylist()
    return found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([266919005.0, float("nan"), None, 1.5, -0.0], ["266919005", None, None, "1.5", "0"]),
        ([9007199254740991.0, 1e300], ["9007199254740991", "1e+300"]),
        ([True, False, None], ["1", "0", None]),
        (pa.array(["a", "b", None, "a"]).dictionary_encode(), ["a", "b", None, "a"]),
        (pa.array([7, None], pa.uint8()), ["7", None]),
        (pa.array([36.6, 3, 0.1], pa.float32()), ["36.6", "3", "0.1"]),
        ([decimal.Decimal("1.50")], ["1.50"]),
        ([datetime.date(2020, 1, 2)], ["2020-01-02"]),
        (pa.array(["x"], pa.large_string()), ["x"]),
        (pa.nulls(2), [None, None]),
    ],
    ids=["codes", "large", "flags", "categories", "small", "single", "decimal", "date", "long",
         "nothing"],
)  # fmt: skip
def test_a_column_of_any_type_is_text(values: Any, expected: list[str | None]) -> None:
    assert texts(values) == expected


def test_a_nested_column_is_refused_where_the_study_names_it() -> None:
    with pytest.raises(DataError, match="column a is nested"):
        texts([[1], [2]])


def table_of(rows: list[list[str]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table({name: list(c) for name, c in zip(HEADER, columns, strict=True)})


def test_an_ignored_column_of_any_type_and_name_does_no_harm(house: House) -> None:
    house.study(kind="parquet")
    table = table_of(patients())
    count = table.num_rows
    for name, values in {
        "Reason": ["x"] * count,
        "a, b": [{"c": 1}] * count,
        "taken": pa.array([1] * count, pa.timestamp("ns")),
        "many": ["y" * 200_000] + ["y"] * (count - 1),
    }.items():
        table = table.append_column(name, pa.array(values))
    parquet.write_table(table, house.folder / "north.parquet")
    done = house.steps("r", "collect", "validate")
    assert done.figures["rows"] == count
    bronze = read(house.steps("r", "collect").tables["bronze"])
    assert list(bronze[0]) == [*HEADER, "_row"]


@pytest.mark.parametrize("name", ["folder", "_export.parquet", "a b[1].parquet"])
def test_a_partitioned_folder_and_odd_names_are_read(
    house: House, sound: dict[str, Manifest], name: str
) -> None:
    house.study(kind="parquet", change=("{path: north.parquet}", f'{{path: "{name}"}}'))
    table = table_of(patients())
    if name == "folder":
        parquet.write_to_dataset(table, house.folder / name, partition_cols=["smoker", "sex"])
    else:
        parquet.write_table(table, house.folder / name)
    silver = house.steps("r", "collect", "validate").tables["silver"]
    assert by_patient(silver) == by_patient(sound["validate"].tables["silver"])


def test_long_cells_and_blank_lines_of_a_csv_lose_no_row(house: House) -> None:
    rows = [[*row, "z" * 200_000 if i == 7 else ""] for i, row in enumerate(patients())]
    lines = text_of(rows, [*HEADER, "note"]).splitlines()
    house.north("\r\n".join([*lines[:5], "", "   ", *lines[5:], "", ""]))
    assert house.steps("r", "collect", "validate").figures["rows"] == len(rows)


def test_a_folder_whose_files_differ_in_types_and_columns_is_read_as_each_is_written(
    house: House, sound: dict[str, Manifest]
) -> None:
    house.study(kind="parquet", change=("{path: north.parquet}", "{path: folder}"))
    folder = house.folder / "folder" / "year=2024"
    folder.mkdir(parents=True)
    place = HEADER.index("age")
    for number, kind in enumerate((pa.float64(), pa.int64(), pa.string())):
        table = table_of(patients()[number::3])
        table = table.set_column(place, "age", table["age"].cast(kind))
        if number == 1:
            table = table.append_column("scans", pa.array([[1]] * table.num_rows))
        parquet.write_table(table, folder / f"{number}.parquet")
    done = house.steps("r", "collect", "validate")
    assert by_patient(done.tables["silver"]) == by_patient(sound["validate"].tables["silver"])
    assert house.steps("r", "collect").figures["ignored"] == 2


def test_a_nested_column_of_several_types_does_no_harm_where_all_columns_are_read(
    house: House, tmp_path: Path
) -> None:
    house.study(kind="parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    count = len(patients())
    kinds = ([[1.5]] * count, pa.nulls(count), [[1]] * count, [{"a": 1}] * count)
    for number, values in enumerate(kinds):
        part = table_of(patients()).append_column("scan", pa.array(values))
        parquet.write_table(part, folder / f"{number}.parquet")
    study = read_study(house.folder / "small.yaml")
    table = open_table(folder, study, "here", house.settings, tmp_path)
    assert len(set(table.digests())) == 4 * count
    assert table.values(["id"])["id"] == [row[0] for row in patients()] * 4


def test_an_empty_folder_and_a_column_that_stands_twice_are_told(
    house: House, tmp_path: Path
) -> None:
    house.study(kind="parquet", change=("{path: north.parquet}", "{path: folder}"))
    folder = house.folder / "folder"
    folder.mkdir()
    with pytest.raises(DataError, match="no Parquet file"):
        house.steps("r", "collect")
    table = table_of(patients())
    parquet.write_table(table, folder / "1.parquet")
    for _ in range(2):
        table = table.append_column("scan", table["age"])
    parquet.write_table(table, folder / "2.parquet")
    with pytest.raises(DataError, match="a column twice"):
        house.steps("r", "collect")


@pytest.mark.parametrize("name", ["north.parquet", "folder"])
def test_a_damaged_file_is_told_without_a_value(house: House, name: str) -> None:
    house.study(kind="parquet", change=("{path: north.parquet}", f"{{path: {name}}}"))
    path = house.folder / name / "1.parquet" if name == "folder" else house.folder / name
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(table_of(patients()), path)
    content = path.read_bytes()
    path.write_bytes(content[:200] + b"zebra" * 100 + content[700:])
    with pytest.raises(DataError, match=r"hospital north, .* to its end") as caught:
        house.steps("r", "collect")
    assert "zebra" not in str(caught.value)


@pytest.mark.slow
def test_a_delta_table_that_only_spark_reads_is_read(house: House, tmp_path: Path) -> None:
    from tasks.lake.session import spark_session

    house.study(kind="delta")
    sound = patients()
    twice = [[f"{row[0]}x", *row[1:]] for row in sound[:10]]
    spark = spark_session(Settings(home=tmp_path))
    frame = spark.createDataFrame(table_of(sound + twice).to_pandas())
    source = str(house.folder / "north.delta")
    options = {"delta.columnMapping.mode": "name", "delta.enableDeletionVectors": "true"}
    frame.coalesce(1).write.format("delta").options(**options).save(source)
    spark.sql(f"DELETE FROM delta.`{source}` WHERE id LIKE '%x'")
    bronze = read(house.steps("r", "collect").tables["bronze"])
    assert sorted(row["id"] for row in bronze) == sorted(row[0] for row in sound)
    assert {row["sex"] for row in bronze} == {"Female", "Male"}
