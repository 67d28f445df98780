"""Look at tables: how they are written, and what their columns hold."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tasks.data.columnar import open_columns
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
        engine: Has its rows as text in the table ``drafted``.
        places: The columns there by their names in the table.
        looks: Its columns by their names there.
        rows: Its rows.
    """

    path: Path
    source: Source
    csv: CsvTable | None
    engine: LocalEngine
    places: dict[str, str]
    looks: dict[str, Looks]
    rows: int


@contextlib.contextmanager
def look_at(paths: Sequence[Path], settings: Settings) -> Iterator[list[Table]]:
    """Read tables, once, and look at them; their rows are at hand until the block is left.

    Args:
        paths: Files, or folders of Parquet or Delta.
        settings: Memory of the engine; Spark for the Delta tables that only it reads.

    Raises:
        DataError: One cannot be read.
    """
    with contextlib.ExitStack() as opened:
        yield [_look_at(path, settings, opened) for path in paths]


def _look_at(path: Path, settings: Settings, opened: contextlib.ExitStack) -> Table:
    where = f"table {path.name}"
    engine = opened.enter_context(LocalEngine(where, settings.engine_memory))
    source, csv = Source(kind="own", format=_format(path)), None
    if source.format == "csv":
        source, csv = dialect_of(path, where)
        places = {name: f"c{place}" for place, name in enumerate(csv.columns)}
        columns = {places[name]: there for name, there in csv.columns.items()}
        engine.take("drafted", csv_rows(replace(csv, columns=columns), source))
    else:
        # Spark's copy of some Delta tables goes there, and not beside the table.
        with (
            tempfile.TemporaryDirectory(prefix="fedrisk-draft-") as scratch,
            open_columns(str(path), source, settings, "pool", where, Path(scratch)) as rows,
        ):
            places = {name: f"c{place}" for place, name in enumerate(_plain(rows.schema))}
            named = {place: name for name, place in places.items()}
            engine.take("drafted", column_rows(rows, named, where))
    marks = DECIMAL_COMMAS if source.delimiter == ";" else MARKS
    looks = looks_of(engine, list(places), marks if csv else MARKS[:1])
    if not looks or looks[0].rows == 0:
        raise DataError(f"{where}: the table has no row.")
    by_name = {each.name: each for each in looks}
    return Table(path, source, csv, engine, places, by_name, looks[0].rows)


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
