"""What a data step asks of an engine; the SQL is Spark's, and every engine gives the same tables.

A step names tables, states views over them, and writes the result of a query as a Delta table.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol, Self

from tasks.run.manifest import TableVersion

if TYPE_CHECKING:
    import pandas as pd

    from tasks.lake.tables import Definition


def arrow_frame(table: Any) -> pd.DataFrame:
    """A pandas frame on Arrow columns: a third of the memory and of the time of objects."""
    import pandas as pd

    found: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return found


class Engine(Protocol):
    """A session of one step; leaving it as a context frees what it holds."""

    def read(self, name: str, table: TableVersion) -> list[str]:
        """Name one version of a Delta table.

        Returns:
            The table's columns, in order.

        Raises:
            DataError: The table or the version is gone.
        """

    def view(self, name: str, sql: str) -> None:
        """Name a query."""

    def keep(self, name: str, sql: str) -> contextlib.AbstractContextManager[None]:
        """Name a query's rows, computed once, as long as the context lasts."""

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a small result."""

    def frame(self, sql: str) -> pd.DataFrame:
        """The rows of a result as a pandas frame on Arrow's columns; null as NA."""

    def write(
        self, sql: str, uri: str, about: dict[str, Any], definition: Definition | None = None
    ) -> TableVersion:
        """Replace a Delta table's rows by a query's, in one commit.

        Args:
            sql: The query.
            uri: The table; created if absent.
            about: Metadata of the commit. No values of rows.
            definition: Columns and constraint that the table has or gets.

        Raises:
            DataError: The constraint rejects a row, or the store refuses the key.
            TableBusy: Another writer committed first.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...
