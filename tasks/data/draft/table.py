"""Look at one table: how it is written, and what its columns hold."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.data.draft.dialect import dialect_of
from tasks.data.draft.looks import DECIMAL_COMMAS, MARKS, Looks, looks_of
from tasks.data.sheet import open_sheet
from tasks.data.source_rows import column_rows, csv_rows, open_columns
from tasks.errors import DataError
from tasks.lake.engine.local import LocalEngine
from tasks.settings import Settings
from tasks.study import Source

SHEETS = (".xlsx", ".xls", ".xlsb", ".ods")


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        path: Where it is.
        kind: ``source.format``.
        source: How it is read.
        looks: Its columns by their names there.
        rows: Its rows.
    """

    path: Path
    kind: str
    source: Source
    looks: dict[str, Looks]
    rows: int


def look_at(path: Path, settings: Settings) -> Table:
    """Look at one table.

    Args:
        path: A file, or a folder of Parquet or Delta.
        settings: Memory of the engine; Spark for the Delta tables that only it reads.

    Raises:
        DataError: It cannot be read.
    """
    where, kind, source = f"table {path.name}", _kind(path), Source(kind="own")
    if kind == "csv":
        source, found = dialect_of(path, where)
        fields = list(found.columns)
    else:
        with _opened(path, kind, settings) as opened:
            fields = _plain(opened.schema)
    named = {f"c{place}": name for place, name in enumerate(fields)}
    with LocalEngine(where, settings.engine_memory) as engine:
        with table_rows(path, kind, named, settings) as rows:
            engine.take("drafted", rows)
        marks = DECIMAL_COMMAS if source.delimiter == ";" else MARKS
        looks = looks_of(engine, fields, marks if kind == "csv" else MARKS[:1])
    if not looks or looks[0].rows == 0:
        raise DataError(f"{where}: the table has no row.")
    return Table(path, kind, source, {each.name: each for each in looks}, looks[0].rows)


@contextlib.contextmanager
def table_rows(
    path: Path, kind: str, columns: Mapping[str, str], settings: Settings
) -> Iterator[Any]:
    """Read some columns of a table as Arrow batches of text.

    Args:
        path: The table.
        kind: ``source.format``.
        columns: What they are to be called, and their names in the table.
        settings: See ``look_at``.
    """
    where = f"table {path.name}"
    if kind == "csv":
        source, found = dialect_of(path, where)
        there = {name: found.columns[field] for name, field in columns.items()}
        yield csv_rows(replace(found, columns=there), source)
        return
    with _opened(path, kind, settings) as opened:
        yield column_rows(opened, columns, where)


@contextlib.contextmanager
def _opened(path: Path, kind: str, settings: Settings) -> Iterator[Any]:
    where = f"table {path.name}"
    # Spark's copy of some Delta tables goes there, and not beside the table.
    with tempfile.TemporaryDirectory(prefix="fedrisk-draft-") as scratch:
        if kind == "xlsx":
            yield open_sheet(path, Source(kind="own"), where)
        else:
            yield open_columns(str(path), kind, settings, "pool", where, Path(scratch))


def _kind(path: Path) -> str:
    if path.is_dir():
        return "delta" if (path / "_delta_log").is_dir() else "parquet"
    suffix = path.suffix.lower()
    if suffix in SHEETS:
        return "xlsx"
    return "parquet" if suffix in (".parquet", ".pq") else "csv"


def _plain(schema: Any) -> list[str]:
    """Columns that are not nested."""
    import pyarrow.types as kinds

    return [field.name for field in schema if not kinds.is_nested(field.type)]
