"""Java, jars and Delta tables: they are found, and missing ones are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import DataError, SettingsError
from tasks.lake.jvm.find_java import MIN_JAVA, find_java, java_version
from tasks.lake.setup import prepare
from tasks.lake.tables import local_path
from tasks.run.manifest import TableVersion
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


@pytest.mark.slow
def test_versions_are_read_from_commits_and_a_lost_one_is_named(tmp_path: Path) -> None:
    from tasks.lake.session import spark_session
    from tasks.lake.tables import commits, overwrite, read_version

    settings = Settings(home=tmp_path)
    prepare(settings)
    spark = spark_session(settings)
    assert list(commits(spark, str(tmp_path / "none"))) == []
    uri = str(tmp_path / "table")
    first = overwrite(spark.range(5).toDF("a"), uri, {"run": "one"})
    second = overwrite(spark.range(7).toDF("an odd, name"), uri, {"run": "two"})
    assert (first.version, first.rows, second.rows) == (0, 5, 7)
    assert second.version > first.version
    assert next(commits(spark, uri)).about["run"] == "two"
    assert read_version(spark, first).count() == 5
    with pytest.raises(DataError, match="could not read"):
        read_version(spark, TableVersion(uri=uri, version=99, rows=0)).count()
