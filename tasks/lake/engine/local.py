"""The engine for ordinary tables: DuckDB in this process, Delta through ``deltalake``.

No Java, no extension that DuckDB would download, and rows beyond its memory on the local disk.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tasks.errors import DataError
from tasks.lake.engine.engine import arrow_frame
from tasks.lake.tables import Definition, define, open_table, overwrite
from tasks.run.manifest import TableVersion
from tasks.s3 import store_error

if TYPE_CHECKING:
    import pandas as pd

BATCH = 100_000
"""Rows per batch that is handed to the writer."""


class LocalEngine(contextlib.AbstractContextManager["LocalEngine"]):
    """An engine of one step.

    Args:
        owner: The owner of this process's key, for messages.
        memory: What DuckDB keeps in memory before it writes to the local disk, as Java writes it.
    """

    def __init__(self, owner: str, memory: str) -> None:
        import duckdb
        import pyarrow as pa

        # Its own allocators keep what is freed; on large tables that was a fifth of the memory.
        pa.set_memory_pool(pa.system_memory_pool())
        self._owner = owner
        self._uris: list[str] = []
        self._folder = tempfile.mkdtemp(prefix="fedrisk-engine-")
        try:
            self._connection = duckdb.connect(
                f"{self._folder}/work.duckdb",
                config={
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    "memory_limit": f"{memory}iB",
                    "temp_directory": self._folder,
                },
            )
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def read(self, name: str, table: TableVersion) -> list[str]:
        """See ``Engine.read``."""
        from pyarrow.dataset import ParquetFragmentScanOptions

        rows = open_table(table.uri, self._owner, table.version).to_pyarrow_dataset()
        # Delta's own choice is to hold each file whole.
        rows.format.default_fragment_scan_options = ParquetFragmentScanOptions(pre_buffer=False)
        self._connection.register(name, rows)
        self._uris.append(table.uri)
        return list(rows.schema.names)

    def take(self, name: str, rows: Any) -> None:
        """Name the rows of an Arrow reader, read once.

        Raises:
            DataError: There is no room for them.
        """
        self._connection.register("given", rows)
        with self.keep(name, "SELECT * FROM given"):
            self._connection.unregister("given")

    def view(self, name: str, sql: str) -> None:
        """See ``Engine.view``."""
        with self._translated():
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {duckdb_sql(sql)}")

    @contextlib.contextmanager
    def keep(self, name: str, sql: str) -> Iterator[None]:
        """See ``Engine.keep``."""
        with self._translated():
            self._connection.execute(f"CREATE OR REPLACE TABLE {name} AS {duckdb_sql(sql)}")
        yield

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """See ``Engine.rows``."""
        with self._translated():
            found = self._connection.execute(duckdb_sql(sql))
            names = [column[0] for column in found.description or []]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def frame(self, sql: str) -> pd.DataFrame:
        """See ``Engine.frame``."""
        with self._translated():
            return arrow_frame(self._connection.sql(duckdb_sql(sql)).to_arrow_table())

    def write(
        self, sql: str, uri: str, about: dict[str, Any], definition: Definition | None = None
    ) -> TableVersion:
        """See ``Engine.write``."""
        if definition is not None:
            define(uri, definition, self._owner)
        with self._translated():
            rows = self._connection.sql(duckdb_sql(sql)).to_arrow_reader(BATCH)
        return overwrite(rows, uri, about, self._owner, definition)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate DuckDB's exceptions, whose texts may hold a value."""
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            for uri in self._uris:
                if (failure := store_error(str(error), uri, self._owner)) is not None:
                    raise failure from None
            # What an Arrow reader meets comes as the first, a full disk or memory as another.
            advice = (
                "A file that it reads is damaged, or not what its table says."
                if isinstance(error, duckdb.InvalidInputException)
                else f"Is there room for the rows in {self._folder}? For large tables there is "
                "FEDRISK_ENGINE=spark."
            )
            raise DataError(
                f"{self._owner}: DuckDB ended a query ({type(error).__name__}). {advice}"
            ) from None

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@functools.lru_cache(maxsize=256)
def duckdb_sql(sql: str) -> str:
    """Spark's SQL in DuckDB's dialect."""
    import sqlglot
    from sqlglot import exp

    def translated(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.CountIf):
            # Of nothing but nulls, DuckDB's is null and Spark's is 0.
            return exp.Coalesce(this=node.copy(), expressions=[exp.Literal.number(0)])
        # sqlglot has no translation of a hexadecimal number.
        if isinstance(node, exp.Anonymous) and node.name.lower() == "conv":
            text = exp.DPipe(this=exp.Literal.string("0x"), expression=node.expressions[0])
            return exp.cast(exp.paren(text), "bigint")
        return node

    return sqlglot.parse_one(sql, read="spark").transform(translated).sql(dialect="duckdb")
