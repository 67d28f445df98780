"""Open a table that has columns of its own types: a sheet, a database's query, Parquet or Delta."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tasks.data.database import open_database
from tasks.data.sheet import open_sheet
from tasks.data.source_rows import as_text
from tasks.errors import DataError
from tasks.lake.engine.choose import spark_engine
from tasks.lake.tables import local_path, open_table, table_error
from tasks.s3 import is_s3
from tasks.settings import Settings
from tasks.study import Source

if TYPE_CHECKING:
    import pyarrow as pa


class Columns(Protocol):
    """An open table.

    Attributes:
        schema: Its columns.
    """

    schema: pa.Schema

    def to_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read some columns."""


@contextlib.contextmanager
def open_columns(
    address: str, source: Source, settings: Settings, owner: str, where: str, folder: Path
) -> Iterator[Columns]:
    """Open a table of any format but CSV.

    Args:
        address: A file or folder; of Delta also ``s3://``, of SQL the database.
        source: The format, and what belongs to it.
        settings: For Spark, which alone reads deletion vectors and column mapping.
        owner: The owner of this process's key.
        where: The message's first words.
        folder: Where Spark may leave a copy.

    Raises:
        DataError: There is no such table, or it is of another format.
        FedriskError: The store or database does not answer, or Spark cannot start.
    """
    if source.format == "sql":
        with open_database(address, source, where) as found:
            yield found
    elif source.format == "xlsx":
        yield open_sheet(Path(address), source, where)
    else:
        path = local_path(address)
        if path is not None and not path.exists():
            raise DataError(
                f"{where}: no such file or folder. Check --source and the study's paths."
            )
        if path is not None and source.format == "parquet":
            yield _parquet(path, where)
        else:
            yield _delta(address, settings, owner, where, folder)


def _parquet(path: Path, where: str) -> Columns:
    from pyarrow import ArrowException, dataset

    try:
        found = dataset.dataset(path, format="parquet", partitioning="hive")
        files = list(found.get_fragments())
        schemas = [file.physical_schema for file in files]
    except (ArrowException, OSError) as error:
        raise _unreadable(where, "parquet", error) from None
    if not files:
        raise DataError(f"{where}: the folder has no Parquet file. Check source.format.")
    # Arrow takes the first file's columns for those of all.
    if all(schema.equals(schemas[0]) for schema in schemas):
        opened: Columns = found
        return opened
    if any(len(set(schema.names)) < len(schema) for schema in schemas):
        raise DataError(f"{where}: a file of the folder has a column twice. Remove one.")
    return _MixedFiles(files, found.schema)


class _MixedFiles:
    """Parquet files that differ in columns or types; a column of several types is text."""

    def __init__(self, files: Sequence[Any], first: pa.Schema) -> None:
        import pyarrow as pa
        import pyarrow.types as kinds

        self._files = files
        types = {field.name: {field.type} for field in first}
        for file in files:
            for field in file.physical_schema:
                types.setdefault(field.name, set()).add(field.type)
        self._mixed = {name for name, found in types.items() if len(found) > 1}
        nested = {n: next(filter(kinds.is_nested, types[n]), pa.string()) for n in self._mixed}
        self.schema = pa.schema((n, nested.get(n, next(iter(found)))) for n, found in types.items())

    def to_batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in columns])
        for file in self._files:
            own = file.physical_schema
            written = [own.field(f.name) if f.name in own.names else f for f in self.schema]
            for batch in file.to_batches(schema=pa.schema(written), columns=list(columns)):
                arrays = [self._unified(n, batch[n]) for n in columns]
                yield pa.record_batch(arrays, schema=schema)

    def _unified(self, name: str, values: pa.Array) -> pa.Array:
        import pyarrow as pa
        import pyarrow.types as kinds

        if name not in self._mixed:
            return values
        kind = self.schema.field(name).type
        # No study reads a nested column; one of several types is left out of the rows.
        return pa.nulls(len(values), kind) if kinds.is_nested(kind) else as_text(values)


def _delta(address: str, settings: Settings, owner: str, where: str, folder: Path) -> Columns:
    from deltalake.exceptions import DeltaError
    from pyarrow import ArrowException

    try:
        table = open_table(address, owner)
        mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
        if mapping == "none" and set(table.protocol().reader_features or []) <= {"timestampNtz"}:
            plain: Columns = table.to_pyarrow_dataset()
            return plain
    except (ArrowException, OSError, DeltaError, DataError) as error:
        if not is_s3(address):
            raise _unreadable(where, "delta", error) from None
        if isinstance(error, DataError):
            raise
        raise table_error(str(error), address, owner) from None
    copy = folder / "columns"
    # A cluster's workers would leave the copy on their own disks.
    here = settings.model_copy(update={"spark_master": "local[2]"})
    with spark_engine(here, owner, 0, address) as engine:
        engine.copy_to_parquet(address, str(copy))
    return _parquet(copy, where)


def _unreadable(where: str, kind: str, error: Exception) -> DataError:
    # By its type alone: a reader's text may hold a value.
    return DataError(
        f"{where}: not readable as {kind} ({type(error).__name__}). Check source.format."
    )
