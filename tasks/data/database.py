"""A query or table of a hospital's PostgreSQL, read as a stream of Arrow batches of text."""

from __future__ import annotations

import contextlib
import itertools
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

        # In a line of its own, what follows a comment at the query's end is no part of it.
        self._cursor, self._asked = cursor, f"({query}\n) AS asked"
        found = cursor.adbc_execute_schema(f"SELECT * FROM {self._asked}")
        self._flags = {field.name for field in found if pa.types.is_boolean(field.type)}
        self.schema: pa.Schema = pa.schema([(name, pa.string()) for name in found.names])

    def to_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read columns; the server sends no other, and makes them text itself."""
        texts = ", ".join(
            f"nullif({self._text(name)}, 'NaN') AS {_quoted(name)}" for name in columns
        )
        self._cursor.execute(f"SELECT {texts} FROM {self._asked}")
        batches = iter(self._cursor.fetch_record_batch())
        # The server runs the query now, and not when it is too late to say what it refuses.
        first = next(batches, None)
        return itertools.chain([] if first is None else [first], batches)

    def _text(self, name: str) -> str:
        """SQL of a column's text: yes and no as 1 and 0, as of every other source."""
        return f"{_quoted(name)}{'::int' if name in self._flags else ''}::text"


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
    from pyarrow import ArrowException

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
    except (Error, ArrowException) as error:
        raise _failure(error, address, where) from None


def _failure(error: Any, address: str, where: str) -> Exception:
    """Translate an error by its code: a server's text may hold a value."""
    text = str(error)
    # A batch that is not read has an error of Arrow, without a code.
    code = str(getattr(error, "sqlstate", None) or ("42" if "PGRES_FATAL_ERROR" in text else ""))
    # While it connects, libpq gives no code, and the server's refusals have this word.
    if code.startswith(("28", "3D")) or (not code and "FATAL:" in text):
        return DataError(
            f"{where}: the database refuses the connection: user, password or the database's name. "
            "Set PGUSER and PGPASSWORD in the owner's environment or credentials."
        )
    if not code or code.startswith(("08", "53", "57")):
        return SourceAway(f"{where}: {public_name(address)} does not answer. Is it up? Try again.")
    named = f" (SQLSTATE {code})" if len(code) == 5 else ""
    return DataError(
        f"{where}: the database refuses source.query or source.table{named}. Try it with psql as "
        "the same user: it may read, and nothing else."
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
