"""Write Delta tables atomically, and take row counts from the metrics of commits.

A write replaces the table's rows in one commit, so a step that runs again leaves the same rows
once, and a step that is killed leaves the previous version. Readers use the version of a manifest.
Counting the rows would cost a Spark job.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import DataError, ExitCode, FedriskError
from tasks.lake.s3 import is_s3, store_error
from tasks.run.manifest import TableVersion

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


UNUSUAL = frozenset(" ,;{}()\n\t=")
"""Characters that Delta allows in a column's name only with column mapping, which Spark supports
and the ``deltalake`` package does not (it returns nulls)."""


class TableBusy(FedriskError):  # noqa: N818  (names the state)
    """Another run wrote the same table at the same moment: retry."""

    exit_code = ExitCode.TRANSIENT


@dataclass(frozen=True)
class Commit:
    """One commit of a Delta table.

    Attributes:
        version: The table's version after it.
        rows: Number of rows that it wrote, if recorded.
        about: Metadata from the writer (run, step, source and figures).
    """

    version: int
    rows: int | None
    about: dict[str, Any] = field(default_factory=dict)


def spark_errors() -> tuple[type[Exception], ...]:
    """The exceptions that Spark raises: its own, and Java's that it does not translate."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    return PySparkException, Py4JError


def local_path(uri: str) -> Path | None:
    """The path of a local URI, or None."""
    if uri.startswith("file:"):
        return Path("/" + uri.removeprefix("file:").lstrip("/"))
    return None if "://" in uri else Path(uri)


def overwrite(
    frame: DataFrame, uri: str, about: dict[str, Any], *, keep_schema: bool = False
) -> TableVersion:
    """Replace a table's rows, and its schema with them, in one commit.

    Args:
        frame: The rows.
        uri: The table; created if absent.
        about: Metadata of the commit; run and step by convention. No values of rows.
        keep_schema: Keep the schema, for a table that ``define`` created.

    Raises:
        DataError: A constraint of the table rejects a row, or the store cannot be reached.
        TableBusy: Another writer committed first.
    """
    token = uuid.uuid4().hex
    writer = (
        frame.write.format("delta")
        .mode("overwrite")
        .option("overwriteSchema", str(not keep_schema).lower())
        .option("userMetadata", json.dumps({**about, "token": token}))
    )
    if any(set(name) & UNUSUAL for name in frame.columns):
        writer = writer.option("delta.columnMapping.mode", "name")
        _map_columns(frame.sparkSession, uri)
    try:
        writer.save(uri)
    except spark_errors() as error:
        raise _table_error(error, uri, frame.sparkSession) from None
    for commit in commits(frame.sparkSession, uri):
        if commit.about.get("token") == token:
            return TableVersion(uri=uri, version=commit.version, rows=commit.rows or 0)
    raise DataError(f"{uri}: the commit that was just written is not in the table's log.")


def _map_columns(spark: SparkSession, uri: str) -> None:
    """Enable column mapping in an existing table; the writer enables it in a new one."""
    if next(commits(spark, uri), None) is not None:
        spark.sql(
            f"ALTER TABLE delta.`{uri}` SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')"
        )


def define(
    spark: SparkSession,
    uri: str,
    columns: dict[str, tuple[str, bool]],
    constraints: dict[str, str],
) -> None:
    """Create an empty table with constraints.

    Args:
        spark: The session.
        uri: The table; an existing one is replaced, and its versions are kept.
        columns: SQL type and nullability by column.
        constraints: SQL conditions that every row must meet, by name.
    """
    from delta.tables import DeltaTable

    builder = DeltaTable.createOrReplace(spark).location(uri)
    for name, (kind, nullable) in columns.items():
        builder = builder.addColumn(name, kind, nullable=nullable)
    for name, condition in constraints.items():
        builder = builder.property(f"delta.constraints.{name}", condition)
    try:
        builder.execute()
    except spark_errors() as error:
        raise _table_error(error, uri, spark) from None


def read_version(spark: SparkSession, table: TableVersion) -> DataFrame:
    """Read one version of a table.

    Raises:
        DataError: The table or the version is gone.
    """
    try:
        return spark.read.format("delta").option("versionAsOf", table.version).load(table.uri)
    except spark_errors() as error:
        raise _table_error(error, table.uri, spark) from None


def commits(spark: SparkSession, uri: str) -> Iterator[Commit]:
    """List a table's commits, newest first; empty where there is no table."""
    for version, text in _log_texts(spark, uri):
        for line in text.splitlines():
            info = json.loads(line).get("commitInfo")
            if info is None:
                continue
            rows = info.get("operationMetrics", {}).get("numOutputRows")
            try:
                about = json.loads(info.get("userMetadata") or "{}")
            except json.JSONDecodeError:
                about = {}
            yield Commit(version, None if rows is None else int(rows), about)
            break


def _log_texts(spark: SparkSession, uri: str) -> Iterator[tuple[int, str]]:
    """Versions and texts of a table's log, newest first; texts are read lazily."""
    path = local_path(uri)
    if path is not None:
        local = {_version(file.name): file for file in (path / "_delta_log").glob("*.json")}
        for version in sorted(local, reverse=True):
            if version >= 0:
                yield version, local[version].read_text(encoding="utf-8")
        return
    try:
        log, system = _remote(spark, f"{uri}/_delta_log")
        try:
            found = system.listStatus(log)
        except spark_errors() as error:
            if "FileNotFoundException" in _causes(error):
                return
            raise
        remote = {_version(status.getPath().getName()): status for status in found}
        for version in sorted(remote, reverse=True):
            if version >= 0:
                yield version, _text(system, remote[version])
    except spark_errors() as error:
        raise _table_error(error, uri, spark) from None


def _version(name: str) -> int:
    """The version of ``00000000000000000007.json``; -1 for another file."""
    number = name.removesuffix(".json")
    return int(number) if name.endswith(".json") and number.isdigit() else -1


def _text(system: Any, status: Any) -> str:
    # The known status saves a request to the store.
    stream = system.openFile(status.getPath()).withFileStatus(status).build().get()
    try:
        return bytes(stream.readAllBytes()).decode("utf-8")
    finally:
        stream.close()


def _remote(spark: SparkSession, uri: str) -> tuple[Any, Any]:
    path = spark._jvm.org.apache.hadoop.fs.Path(uri)
    return path, path.getFileSystem(spark._jsc.hadoopConfiguration())


def _causes(error: Exception) -> str:
    """The texts of a Java exception and its causes, one per line."""
    java = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    texts: list[str] = []
    while java is not None and len(texts) < 20:
        texts.append(str(java.toString()))
        java = java.getCause()
    return "\n".join(texts) or str(error)


def store_failure(error: Exception, uri: str, spark: SparkSession) -> FedriskError | None:
    """The error to raise where the S3 store of an address is the cause; else None.

    Args:
        error: Spark's exception.
        uri: The address.
        spark: The session, whose name contains the owner of its key.
    """
    if not is_s3(uri):
        return None
    owner = spark.sparkContext.appName.removeprefix("fedrisk").strip()
    return store_error(_causes(error), uri, owner)


def _table_error(error: Exception, uri: str, spark: SparkSession) -> FedriskError:
    """Translate an exception of Spark, without the values that its text contains."""
    text = str(error)
    found = store_failure(error, uri, spark)
    if found is not None:
        return found
    if "DELTA_VIOLATE_CONSTRAINT" in text or "DELTA_NOT_NULL_CONSTRAINT" in text:
        return DataError(
            f"{uri}: a constraint of the table rejects at least one row. The study's ranges or "
            "categories and the table's constraints differ; delete the table to rebuild it."
        )
    if "Concurrent" in text and "Exception" in text:
        return TableBusy(f"{uri}: another run wrote this table at the same moment. Retry.")
    if "No FileSystem for scheme" in text or "S3AFileSystem not found" in text:
        return DataError(
            f"{uri}: Spark does not support this kind of address. Use a path, file:// or s3a://."
        )
    first = type(error).__name__ + ": " + (text.strip().splitlines() or [""])[0][:200]
    return DataError(f"{uri}: Spark could not read or write the table ({first}).")


def copy_to_local(spark: SparkSession, uri: str, target: Path, where: str) -> None:
    """Copy a file or folder from a store to this machine.

    Args:
        spark: The session, for its file systems.
        uri: An address that Spark supports, such as ``s3a://bucket/file``.
        target: The path to create.
        where: Prefix of error messages.

    Raises:
        DataError: There is no such object, or Spark has no jars for the address.
    """
    try:
        path, system = _remote(spark, uri)
        system.copyToLocalFile(False, path, spark._jvm.org.apache.hadoop.fs.Path(str(target)), True)
    except spark_errors() as error:
        if "FileNotFoundException" in _causes(error):
            raise DataError(f"{where}: {uri} does not exist. Check the address.") from None
        raise _table_error(error, uri, spark) from None
