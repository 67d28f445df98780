"""The engine for tables that one process cannot hold: Spark, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tasks.errors import DataError, FedriskError
from tasks.lake.engine.engine import arrow_frame
from tasks.lake.session import spark_session, tune
from tasks.lake.tables import Definition, define, table_error, written
from tasks.run.manifest import TableVersion
from tasks.s3 import s3a_address
from tasks.settings import Settings

if TYPE_CHECKING:
    import pandas as pd


class SparkEngine(contextlib.AbstractContextManager["SparkEngine"]):
    """An engine of one step; the session stays for the process's next.

    Args:
        settings: Java, jars, lake, Spark's master and memory.
        owner: The owner of this process's key, for messages.
        rows: Rows of the table, by which shuffles are split.
        addresses: Sources to read besides the lake.
    """

    def __init__(self, settings: Settings, owner: str, rows: int, *addresses: str) -> None:
        self._owner = owner
        self._session = spark_session(settings, *addresses, owner=owner)
        self._names: list[str] = []
        self._uri = ""
        tune(self._session, rows)

    def read(self, name: str, table: TableVersion) -> list[str]:
        """See ``Engine.read``."""
        reader = self._session.read.format("delta").option("versionAsOf", table.version)
        self._uri = table.uri
        with _translated(table.uri, self._owner):
            frame = reader.load(s3a_address(table.uri))
            self._name(name, frame)
            return list(frame.columns)

    def view(self, name: str, sql: str) -> None:
        """See ``Engine.view``."""
        with _translated(self._uri, self._owner):
            self._name(name, self._session.sql(sql))

    @contextlib.contextmanager
    def keep(self, name: str, sql: str) -> Iterator[None]:
        """See ``Engine.keep``.

        Spark compares every later query's plan with those that are still kept: a process that
        refused thirty tables and kept them took ten times as long for the next.
        """
        frame = self._session.sql(sql).persist()
        self._name(name, frame)
        try:
            yield
        finally:
            frame.unpersist()

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """See ``Engine.rows``."""
        with _translated(self._uri, self._owner):
            return [row.asDict() for row in self._session.sql(sql).collect()]

    def frame(self, sql: str) -> pd.DataFrame:
        """See ``Engine.frame``."""
        with _translated(self._uri, self._owner):
            return arrow_frame(self._session.sql(sql).toArrow())

    def write(
        self, sql: str, uri: str, about: dict[str, Any], definition: Definition | None = None
    ) -> TableVersion:
        """See ``Engine.write``."""
        if definition is not None:
            define(uri, definition, self._owner)
        token = uuid.uuid4().hex
        writer = self._session.sql(sql).write.format("delta").mode("overwrite")
        writer = writer.option("overwriteSchema", str(definition is None).lower())
        writer = writer.option("userMetadata", json.dumps({**about, "token": token}))
        with _translated(uri, self._owner):
            writer.save(s3a_address(uri))
        return written(uri, token, self._owner)

    def copy_to_parquet(self, address: str, folder: str) -> None:
        """Copy a Delta table that only Spark reads (deletion vectors, column mapping) to Parquet.

        Args:
            address: The table.
            folder: The folder to create, on this machine.
        """
        with _translated(address, self._owner):
            self._session.read.format("delta").load(s3a_address(address)).write.parquet(folder)

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            self._session.catalog.dropTempView(name)

    def _name(self, name: str, frame: Any) -> None:
        frame.createOrReplaceTempView(name)
        self._names.append(name)


@contextlib.contextmanager
def _translated(uri: str, owner: str) -> Iterator[None]:
    """Translate Spark's exceptions: its own, and Java's that it does not translate."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise _error(error, uri, owner) from None


def _error(error: Exception, uri: str, owner: str) -> FedriskError:
    java = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    texts = [str(error)]
    while java is not None and len(texts) < 20:
        texts.append(str(java.toString()))
        java = java.getCause()
    text = "\n".join(texts)
    if "No FileSystem for scheme" in text or "S3AFileSystem not found" in text:
        return DataError(
            f"{uri}: Spark does not support this kind of address. Use a path, file:// or s3a://."
        )
    return table_error(text, uri, owner)
