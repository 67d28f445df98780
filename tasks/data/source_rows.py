"""The rows of a source as Arrow batches of text, whatever kind of file it is.

Only the study's columns are read: no other column of a hospital's table enters its lake.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data.csv_table import LONGEST, CsvTable, is_plain, open_text
from tasks.errors import DataError
from tasks.lake.tables import lake_name
from tasks.study import Source

if TYPE_CHECKING:
    import pyarrow as pa

ROW = "_row"
"""The 1-based place of a row in its source."""
_BLOCK = 4 * LONGEST
"""Bytes of a CSV that are parsed at a time, at least its longest value's."""
_CHARACTERS = 1 << 20
_WHOLE = float(2**53)
"""Below it every whole number is a double of its own."""


def csv_rows(table: CsvTable, source: Source) -> pa.RecordBatchReader:
    """Read a CSV's study columns as received: nothing is trimmed, and an empty value is null.

    Args:
        table: What ``inspect_csv`` found.
        source: The dialect.
    """
    import pyarrow as pa
    from pyarrow import csv

    names = [f"c{i}" for i in range(len(table.fields))]
    wanted = [names[table.fields.index(field)] for field in table.columns.values()]
    reader = csv.open_csv(
        table.path if is_plain(table.path, source) else _Utf8(table.path, source),
        read_options=csv.ReadOptions(column_names=names, block_size=_BLOCK),
        parse_options=csv.ParseOptions(
            delimiter=source.delimiter,
            newlines_in_values=table.multiline,
            # Only blank lines differ in width: ``inspect_csv`` refuses others.
            invalid_row_handler=lambda _: "skip",
        ),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=names if table.has_blank else wanted,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )

    def batches() -> Iterator[list[Any]]:
        header = source.header
        for batch in reader:
            rows = batch.filter(_has_value(batch)) if table.has_blank else batch
            if header and rows.num_rows:
                rows, header = rows.slice(1), False
            yield [rows.column(name) for name in wanted]

    return _placed(batches(), list(table.columns))


def _has_value(rows: pa.RecordBatch) -> Any:
    """Whether any column of a row says something."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: Any = pa.array([False] * rows.num_rows)
    for column in rows.columns:
        says = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0)
        found = pc.or_(found, pc.fill_null(says, False))
    return found


class _Utf8(io.RawIOBase):
    """A CSV's text as a stream of UTF-8."""

    def __init__(self, path: Path, source: Source) -> None:
        self._exit = contextlib.ExitStack()
        self._text, _ = self._exit.enter_context(open_text(path, source))
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # Arrow takes a short answer for a block of its own.
        while len(self._rest) < len(buffer) and (more := self._text.read(_CHARACTERS)):
            self._rest += more.encode()
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._exit.close()
        super().close()


def column_rows(rows: Any, columns: Mapping[str, str], where: str) -> pa.RecordBatchReader:
    """Read columns of a table as text.

    Args:
        rows: What ``open_columns`` gives.
        columns: The columns to read, and their names in the table.
        where: The message's first words.

    Raises:
        DataError: A column is nested.
    """
    import pyarrow.types as kinds

    schema = rows.schema
    nested = [name for name in columns.values() if kinds.is_nested(schema.field(name).type)]
    if nested:
        raise DataError(f"{where}: column {', '.join(nested)} is nested. Expected plain values.")
    batches = rows.to_batches(columns=list(columns.values()))
    return _placed(([as_text(c) for c in batch.columns] for batch in batches), list(columns))


def _placed(batches: Iterable[list[Any]], columns: Sequence[str]) -> pa.RecordBatchReader:
    """Add ``ROW`` to batches of text."""
    import pyarrow as pa

    schema = pa.schema([*[(lake_name(name), pa.string()) for name in columns], (ROW, pa.int64())])

    def made() -> Iterator[pa.RecordBatch]:
        before = 0
        for texts in batches:
            count = len(texts[0])
            place = pa.array(range(before + 1, before + count + 1), pa.int64())
            yield pa.record_batch([*texts, place], schema=schema)
            before += count

    return pa.RecordBatchReader.from_batches(schema, made())


def as_text(values: Any) -> Any:
    """Values as text: true and false as 1 and 0, NaN as null, a whole number without decimals."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    if kinds.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    if kinds.is_boolean(values.type):
        return pc.if_else(values, "1", "0")
    if not kinds.is_floating(values.type):
        return pc.cast(values, pa.string())
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    double = pc.cast(values, pa.float64())
    whole = pc.and_(pc.equal(pc.floor(double), double), pc.less(pc.abs(double), _WHOLE))
    whole = pc.fill_null(whole, False)
    digits = pc.cast(pc.if_else(whole, double, 0.0), pa.int64())
    # Of a single's own type: as a double .1 has seventeen digits.
    return pc.if_else(whole, pc.cast(digits, pa.string()), pc.cast(values, pa.string()))
