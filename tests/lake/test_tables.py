"""Java, jars and Delta tables: they are found, and missing ones are reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pytest

from tasks.errors import DataError, SettingsError
from tasks.lake.jvm.find_java import MIN_JAVA, find_java, java_version
from tasks.lake.tables import TableBusy, commits, local_path, open_table, overwrite
from tasks.settings import Settings


def test_a_java_that_is_new_enough_is_found(tmp_path: Path) -> None:
    version = java_version(find_java(Settings(home=tmp_path)))
    assert version is not None
    assert version >= MIN_JAVA


def test_a_java_home_without_java_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has no bin/java"):
        find_java(Settings(home=tmp_path, java_home=str(tmp_path)))


@pytest.mark.parametrize(
    ("uri", "path"),
    [("/a/b", Path("/a/b")), ("file:///a/b", Path("/a/b")), ("s3a://bucket/b", None)],
)
def test_a_uri_of_this_machine_has_a_path(uri: str, path: Path | None) -> None:
    assert local_path(uri) == path


def test_versions_are_read_from_commits_and_a_lost_one_is_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "table")
    assert list(commits(uri, "")) == []
    batches = [pa.table({"a": range(rows)}).to_reader() for rows in (5, 7)]
    first, second = (overwrite(b, uri, {"run": f"r{i}"}, "h") for i, b in enumerate(batches))
    assert (first.version, first.rows, second.version, second.rows) == (0, 5, 1, 7)
    assert [commit.about["run"] for commit in commits(uri, "")] == ["r1", "r0"]
    assert open_table(uri, "h", 0).to_pyarrow_table().num_rows == 5
    with pytest.raises(DataError, match="could not read"):
        open_table(uri, "h", 99)


def test_a_table_that_another_run_replaced_meanwhile_is_busy(tmp_path: Path) -> None:
    uri = str(tmp_path / "table")
    one = pa.table({"a": [1]})
    overwrite(one.to_reader(), uri, {}, "h")

    def slow() -> Iterator[pa.RecordBatch]:
        yield from one.to_batches()
        other = Thread(target=overwrite, args=(one.to_reader(), uri, {"run": "other"}, "h"))
        other.start()
        other.join()

    with pytest.raises(TableBusy, match="Retry"):
        overwrite(pa.RecordBatchReader.from_batches(one.schema, slow()), uri, {}, "h")
    assert next(commits(uri, "")).about["run"] == "other"
