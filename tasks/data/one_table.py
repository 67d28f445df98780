"""One table that holds the rows of several hospitals: read some columns, write its parts.

A CSV is read twice as a stream and its parts keep every byte of a value; Parquet and Delta are
held as Arrow tables and their parts are Parquet, so that types are kept too.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tasks.data.columnar import open_columns
from tasks.data.csv_table import CsvTable, find_columns, inspect_csv, is_blank, open_rows
from tasks.errors import DataError
from tasks.settings import Settings
from tasks.study import Source, Study, canonical


class OneTable(Protocol):
    """A table whose rows belong to several hospitals."""

    def values(self, columns: Sequence[str]) -> dict[str, list[str]]:
        """Raw values of some of the study's columns; the empty string where there is none."""

    def digests(self) -> list[str]:
        """One digest a row, of its content and its number of occurrence."""

    def write(self, belongs: Sequence[str], folders: Mapping[str, Path]) -> dict[str, Path]:
        """Write the rows of each hospital of ``folders``.

        Args:
            belongs: A hospital for each row.
            folders: Where each hospital's file goes.

        Returns:
            The files by hospital.
        """


def open_table(path: Path, study: Study, where: str, settings: Settings, scratch: Path) -> OneTable:
    """Open a table after checking that it is what the study says.

    Args:
        path: A file, or a folder of a Delta or Parquet table.
        study: Columns and dialect.
        where: The message's first words.
        settings: For Spark, which alone reads some Delta tables.
        scratch: A folder for copies.

    Raises:
        DataError: It is not.
    """
    if study.source.format == "csv":
        return _Csv(inspect_csv(path, study, where, None), study)
    return _Arrow(path, study, where, settings, scratch)


def row_digests(rows: Iterable[Sequence[str]]) -> list[str]:
    """Digest rows; a row that stands there several times gets a digest an occurrence."""
    seen: Counter[str] = Counter()
    found: list[str] = []
    for row in rows:
        digest = hashlib.sha256("\x1f".join(map(canonical, row)).encode()).hexdigest()
        seen[digest] += 1
        found.append(f"{digest}#{seen[digest]}")
    return found


def write_csv(
    path: Path, source: Source, fields: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Write a CSV in the study's dialect, so that ``collect`` reads it as it reads the source."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # A byte order mark is followed in reading: no value is lost where the source's mark named
    # another encoding than the study.
    encoding = "utf-8" if source.encoding == "utf-8" else "utf-8-sig"
    with temporary.open("w", encoding=encoding, newline="") as file:
        file.write("\n" * source.skip)
        writer = csv.writer(file, delimiter=source.delimiter, lineterminator="\n")
        if source.header:
            writer.writerow(fields)
        writer.writerows(rows)
    temporary.replace(path)


class _Csv:
    def __init__(self, table: CsvTable, study: Study) -> None:
        self.table, self.source = table, study.source

    def _rows(self) -> Iterable[list[str]]:
        with open_rows(self.table.path, self.source) as lines:
            rows = (row for row in lines if not is_blank(row))
            if self.source.header:
                next(rows)
            yield from rows

    def values(self, columns: Sequence[str]) -> dict[str, list[str]]:
        places = [(name, self.table.fields.index(self.table.columns[name])) for name in columns]
        found: dict[str, list[str]] = {name: [] for name in columns}
        for row in self._rows():
            for name, place in places:
                found[name].append(row[place])
        return found

    def digests(self) -> list[str]:
        return row_digests(self._rows())

    def write(self, belongs: Sequence[str], folders: Mapping[str, Path]) -> dict[str, Path]:
        files = {name: folder / f"{name}.csv" for name, folder in folders.items()}
        for name, file in files.items():
            owned = (row for row, owner in zip(self._rows(), belongs, strict=True) if owner == name)
            write_csv(file, self.source, self.table.fields, owned)
        return files


class _Arrow:
    def __init__(
        self, path: Path, study: Study, where: str, settings: Settings, scratch: Path
    ) -> None:
        import pyarrow as pa

        with open_columns(str(path), study.source, settings, "pool", where, scratch) as found:
            fields = found.schema.names
            self.columns = find_columns(fields, study, where, None)
            try:
                self.table = pa.Table.from_batches(found.to_batches(fields), found.schema)
            except (pa.ArrowException, OSError):
                raise DataError(f"{where}: could not be read to its end. Is it whole?") from None
        if self.table.num_rows == 0:
            raise DataError(f"{where}: the table has no row. Expected a row a patient.")

    def values(self, columns: Sequence[str]) -> dict[str, list[str]]:
        return {name: self._texts(self.columns[name]) for name in columns}

    def _texts(self, field: str) -> list[str]:
        return ["" if value is None else _text(value) for value in self.table[field].to_pylist()]

    def digests(self) -> list[str]:
        return row_digests(zip(*map(self._texts, self.table.column_names), strict=True))

    def write(self, belongs: Sequence[str], folders: Mapping[str, Path]) -> dict[str, Path]:
        import pyarrow.parquet as parquet

        files = {}
        for name, folder in folders.items():
            places = [i for i, owner in enumerate(belongs) if owner == name]
            files[name] = folder / f"{name}.parquet"
            temporary = folder / f".{name}.parquet.{os.getpid()}"
            parquet.write_table(self.table.take(places), temporary)
            temporary.replace(files[name])
        return files


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
