"""Look through a CSV before anybody reads it: encoding, delimiter, header and width of the rows.

What is wrong with the file is found here, in one streaming pass, and told with its place and never
its value.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from tasks.errors import DataError
from tasks.study import Source, Study

LONGEST = 1 << 24
"""Characters that a value may have: Python's limit of 131,072 refuses a note with a picture."""
csv.field_size_limit(LONGEST)
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""Suffix of a packed CSV, and what Arrow calls it."""
OTHERS = ",;\t|"
"""Delimiters that are looked for when the study's one is not there."""
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
LISTED = 5
"""Line numbers that a message lists at most."""


@dataclass(frozen=True)
class CsvTable:
    """What the pass found.

    Attributes:
        path: The file.
        fields: Names of the file's columns, in order.
        columns: The study's columns that are there, and their names in the file.
        rows: Rows, without header and blank lines.
        multiline: Whether a quoted value holds a line break.
        has_blank: Whether a line has delimiters and nothing else.
    """

    path: Path
    fields: list[str]
    columns: dict[str, str]
    rows: int
    multiline: bool
    has_blank: bool


@contextmanager
def open_text(path: Path, source: Source) -> Iterator[tuple[TextIO, int]]:
    """Open a CSV as text, unpacked and decoded, after the lines that are no part of the table.

    Args:
        path: The file; ``.gz``, ``.bz2``, ``.zst`` and ``.zip`` (of one file) are unpacked.
        source: Encoding and lines to skip.

    Yields:
        The text, with its line ends as they are, and the number of lines before it.
    """
    # Looked at first: a stream that is unpacked cannot be taken back.
    encoding, skipped = _start(path, source)
    with open_bytes(path) as raw, io.TextIOWrapper(raw, encoding, newline="") as text:
        for _ in range(skipped):
            text.readline()
        yield text, skipped


@contextmanager
def open_rows(path: Path, source: Source) -> Iterator[Iterator[list[str]]]:
    """Open a CSV as an iterator of its lines' fields, the header's included."""
    with open_text(path, source) as (text, _):
        yield csv.reader(text, delimiter=source.delimiter)


def is_plain(path: Path, source: Source) -> bool:
    """Whether the file is UTF-8 that starts with the table."""
    encoding, skipped = _start(path, source)
    packed = path.suffix.lower() in (*COMPRESSED, ".zip")
    return not packed and encoding.startswith("utf-8") and skipped == 0


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file's bytes, unpacked by its suffix."""
    suffix = path.suffix.lower()
    if suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [each.filename for each in archive.infolist() if not each.is_dir()]
            if len(names) != 1:
                raise zipfile.BadZipFile(f"holds {len(names)} files, expected one table")
            with archive.open(names[0]) as member:
                yield cast("io.BufferedReader", member)
    elif suffix in COMPRESSED:
        import pyarrow as pa

        with pa.CompressedInputStream(pa.OSFile(str(path)), COMPRESSED[suffix]) as stream:
            # TextIOWrapper asks for a method that Arrow's stream lacks.
            yield io.BufferedReader(cast("io.RawIOBase", _Raw(stream)))
    else:
        with path.open("rb") as file:
            yield file


class _Raw(io.RawIOBase):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part: bytes = self._stream.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


def _start(path: Path, source: Source) -> tuple[str, int]:
    """The encoding, and the lines before the table."""
    with open_bytes(path) as raw:
        encoding = _encoding(raw, source)
        with io.TextIOWrapper(raw, encoding) as text:
            for _ in range(source.skip):
                text.readline()
            first = text.readline(16).strip("\r\n")
    return encoding, source.skip + bool(re.fullmatch(r"sep=.", first, re.IGNORECASE))


def _encoding(raw: io.BufferedReader, source: Source) -> str:
    """The encoding that the file's mark says, or else the study."""
    mark = raw.peek(3)[:3]
    if mark[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    return "utf-8-sig" if mark == codecs.BOM_UTF8 else source.encoding


def is_blank(row: list[str]) -> bool:
    """Whether a line holds nothing; such lines are no rows."""
    return not any(value.strip() for value in row)


def inspect_csv(path: Path, study: Study, where: str, hospital: str | None) -> CsvTable:
    """Check a CSV from its first byte to its last.

    Args:
        path: The file.
        study: Says which columns must be there, and the dialect.
        where: Whose file it is, the message's first words.
        hospital: The hospital whose own file it is; None for a table that is dealt out.

    Raises:
        DataError: It is missing, empty, not in the study's encoding or delimiter, its columns are
            not the study's, or its rows differ in width.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise DataError(f"{where}: {what}. Expected a CSV; check --source and the study's paths.")
    try:
        return _inspect(path, study, where, hospital)
    except UnicodeDecodeError:
        raise _undecodable(path, study.source, where) from None
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        why = str(error) if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        raise DataError(f"{where}: cannot be unpacked or read ({why}). Is it whole?") from None
    except csv.Error as error:
        raise DataError(f"{where}: not readable as CSV ({error}). Check the quotes.") from None


def _inspect(path: Path, study: Study, where: str, hospital: str | None) -> CsvTable:
    source = study.source
    ragged: list[int] = []
    rows, wrong, multiline, has_blank = 0, 0, False, False
    fields: list[str] = list(source.fields)
    columns: dict[str, str] = {}
    with open_text(path, source) as (text, skipped):
        lines = csv.reader(text, delimiter=source.delimiter)
        line_before, first = skipped, True
        for row in lines:
            line = skipped + lines.line_num
            place, line_before = line_before + 1, line
            multiline = multiline or line > place
            if is_blank(row):
                has_blank = has_blank or len(row) > 1
                continue
            if first:
                first = False
                _check_delimiter(row, source, study, where)
                if source.header:
                    fields = [name.strip() for name in row]
                columns = find_columns(fields, study, where, hospital)
                if source.header:
                    continue
            rows += 1
            if len(row) != len(fields):
                wrong += 1
                ragged.append(place)
                del ragged[LISTED:]
    if first:
        raise DataError(f"{where}: the file is empty. Expected a table of patients.")
    if rows == 0:
        raise DataError(f"{where}: there is a header but no row. Expected a row a patient.")
    if wrong:
        lines_named = ", ".join(map(str, ragged)) + (", ..." if wrong > len(ragged) else "")
        raise DataError(
            f"{where}: {wrong} of {rows} rows do not have {len(fields)} fields as "
            f"{'the header' if source.header else 'source.fields'} says (line {lines_named}). "
            f"Look for a missing or unquoted {NAMES.get(source.delimiter, 'delimiter')}."
        )
    return CsvTable(path, fields, columns, rows, multiline, has_blank)


def find_columns(
    fields: list[str], study: Study, where: str, hospital: str | None
) -> dict[str, str]:
    """Find the study's columns in a table.

    Args:
        fields: The table's columns.
        study: Says which must and which may be there, and what else they may be called.
        where: The message's first words.
        hospital: Whose table it is; there a column may have another name, or be absent.

    Returns:
        The study's columns that are there, in the study's order, and their names in the table.

    Raises:
        DataError: A column is lacking, stands there twice or is one that the study does not name.
    """
    optional = {
        name
        for name, column in study.columns.items()
        if (hospital in column.optional_at if hospital else column.optional_at)
    }
    own = study.hospitals[hospital].columns if hospital in study.hospitals else {}
    found: dict[str, str] = {}
    for name in study.raw_columns:
        aliases = study.columns[name].aliases if name in study.columns else []
        names = [own[name]] if name in own else [name, *aliases]
        there = [each for each in names if each in fields]
        if there:
            found[name] = there[0]
    lacking = [
        own.get(name, name)
        for name in study.raw_columns
        if name not in found and name not in optional
    ]
    if lacking:
        hint = "Check the header's spelling, or give its name in aliases or hospitals.*.columns"
        if not found:
            # Its names are not repeated here: the first line may be a patient's row.
            hint = "Does the file have a header? If not, set source.header: false and source.fields"
        raise DataError(
            f"{where}: lacks column{'s'[: len(lacking) > 1]} {', '.join(lacking)}. {hint}; "
            f"expected {', '.join(study.raw_columns)}."
        )
    for field in found.values():
        both = [name for name, other in found.items() if other == field]
        if len(both) > 1:
            raise DataError(
                f"{where}: column {field} is read as {' and as '.join(both)}. Give the other its "
                "name in hospitals.*.columns, or correct it."
            )
    lower = [name.lower() for name in fields]
    twice = sorted({name for name in found.values() if lower.count(name.lower()) > 1})
    if twice:
        raise DataError(f"{where}: column {', '.join(twice)} stands there twice. Remove one.")
    extra = [name for name in fields if name not in found.values()]
    if extra and study.source.extra == "refuse":
        raise DataError(
            f"{where}: has {len(extra)} column{'s'[: len(extra) > 1]} that the study does not "
            f"name: {', '.join(repr(name) for name in extra)}. Add to columns, remove, or set "
            "source.extra: ignore."
        )
    return found


def _check_delimiter(row: list[str], source: Source, study: Study, where: str) -> None:
    if len(row) > 1 or len(study.raw_columns) == 1:
        return
    counts = {other: row[0].count(other) for other in OTHERS if other != source.delimiter}
    likely = max(counts, key=lambda other: counts[other])
    if counts[likely] > 0:
        raise DataError(
            f"{where}: the first line has one field if split at "
            f"{NAMES.get(source.delimiter, repr(source.delimiter))}s, and {counts[likely] + 1} if "
            f"split at {NAMES[likely]}s. Set source.delimiter to {likely!r}."
        )


def _undecodable(path: Path, source: Source, where: str) -> DataError:
    with open_bytes(path) as file:
        encoding, offset = _encoding(file, source), 0
        for number, line in enumerate(file if encoding.startswith("utf-8") else (), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return DataError(
                    f"{where}: not UTF-8 at byte {offset + error.start} (line {number}). Set "
                    "source.encoding: cp1252 (Windows) or iso-8859-1 if that is what it is, or "
                    "convert the file."
                )
            offset += len(line)
    return DataError(f"{where}: not {encoding}. Set source.encoding, or convert the file.")
