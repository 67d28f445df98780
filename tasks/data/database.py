"""A query or table of a hospital's PostgreSQL, read as a stream of Arrow batches of text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tasks.data.fetch import SourceAway, public_name
from tasks.errors import DataError
from tasks.study import Source

if TYPE_CHECKING:
    import pyarrow as pa

CONNECT = 30
"""Seconds within which the server must answer."""


class Database:
    """An open query, read as ``source_rows.column_rows`` reads an Arrow dataset.

    Attributes:
        schema: The query's columns, all text.
    """

    def __init__(self, cursor: Any, query: str) -> None:
        import pyarrow as pa

        self._cursor, self._query = cursor, query
        names = cursor.adbc_execute_schema(f"SELECT * FROM ({query}) AS asked").names
        self.schema: pa.Schema = pa.schema([(name, pa.string()) for name in names])

    def to_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read columns; the server sends no other, and makes them text itself."""
        texts = ", ".join(f"nullif({_quoted(c)}::text, 'NaN') AS {_quoted(c)}" for c in columns)
        self._cursor.execute(f"SELECT {texts} FROM ({self._query}) AS asked")
        yield from self._cursor.fetch_record_batch()


@contextlib.contextmanager
def open_database(address: str, source: Source, where: str) -> Iterator[Database]:
    """Connect to a database and open the study's query, within one read-only transaction.

    Args:
        address: ``postgresql://host[:port]/database``; user and password are ``PG*`` variables.
        source: The query or table.
        where: The message's first words.

    Raises:
        DataError: The server refuses the user or the query.
        SourceAway: The server does not answer.
    """
    from adbc_driver_manager import Error
    from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

    query = source.query
    if query is None:
        query = f"SELECT * FROM {'.'.join(map(_quoted, str(source.table).split('.')))}"
    try:
        with (
            dbapi.connect(f"{address}?connect_timeout={CONNECT}") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SET TRANSACTION READ ONLY")
            yield Database(cursor, query.strip().rstrip(";"))
    except Error as error:
        raise _failure(error, address, where) from None


def _failure(error: Any, address: str, where: str) -> Exception:
    """Translate an error by its code: a server's text may hold a value."""
    code = str(error.sqlstate or "")
    if code.startswith("28") or "password" in str(error):
        return DataError(
            f"{where}: the database refuses the user. Set PGUSER and PGPASSWORD in the owner's "
            "environment or credentials."
        )
    if not code or code.startswith(("08", "53", "57")):
        return SourceAway(f"{where}: {public_name(address)} does not answer. Is it up? Try again.")
    return DataError(
        f"{where}: the database refuses source.query or source.table (SQLSTATE {code}). Try it "
        "with psql as the same user."
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
