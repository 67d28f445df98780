"""Look at one table: how it is written, and what its columns hold."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tasks.data.columnar import Columns, open_columns
from tasks.data.csv_table import CsvTable
from tasks.data.draft.dialect import dialect_of
from tasks.data.draft.looks import DECIMAL_COMMAS, MARKS, Looks, looks_of
from tasks.data.source_rows import column_rows, csv_rows
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
        source: How it is read.
        csv: Its columns, if it is a CSV.
        looks: Its columns by their names there.
        rows: Its rows.
    """

    path: Path
    source: Source
    csv: CsvTable | None
    looks: dict[str, Looks] = field(default_factory=dict)
    rows: int = 0

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"table {self.path.name}"


def look_at(path: Path, settings: Settings) -> Table:
    """Look at one table.

    Args:
        path: A file, or a folder of Parquet or Delta.
        settings: Memory of the engine; Spark for the Delta tables that only it reads.

    Raises:
        DataError: It cannot be read.
    """
    table = Table(path, Source(kind="own", format=_format(path)), None)
    if table.source.format == "csv":
        source, csv = dialect_of(path, table.where)
        table = Table(path, source, csv)
        fields = list(csv.columns)
    else:
        with _opened(table, settings) as opened:
            fields = _plain(opened.schema)
    named = {f"c{place}": name for place, name in enumerate(fields)}
    with LocalEngine(table.where, settings.engine_memory) as engine:
        with table_rows(table, named, settings) as rows:
            engine.take("drafted", rows)
        marks = DECIMAL_COMMAS if table.source.delimiter == ";" else MARKS
        looks = looks_of(engine, fields, marks if table.csv else MARKS[:1])
    if not looks or looks[0].rows == 0:
        raise DataError(f"{table.where}: the table has no row.")
    return replace(table, looks={each.name: each for each in looks}, rows=looks[0].rows)


@contextlib.contextmanager
def table_rows(table: Table, columns: Mapping[str, str], settings: Settings) -> Iterator[Any]:
    """Read some columns of a table as Arrow batches of text.

    Args:
        table: The table.
        columns: What they are to be called, and their names in the table.
        settings: See ``look_at``.
    """
    if table.csv:
        there = {name: table.csv.columns[field] for name, field in columns.items()}
        yield csv_rows(replace(table.csv, columns=there), table.source)
        return
    with _opened(table, settings) as opened:
        yield column_rows(opened, columns, table.where)


@contextlib.contextmanager
def _opened(table: Table, settings: Settings) -> Iterator[Columns]:
    # Spark's copy of some Delta tables goes there, and not beside the table.
    with (
        tempfile.TemporaryDirectory(prefix="fedrisk-draft-") as scratch,
        open_columns(
            str(table.path), table.source, settings, "pool", table.where, Path(scratch)
        ) as opened,
    ):
        yield opened


def _format(path: Path) -> Literal["csv", "parquet", "delta", "xlsx"]:
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
