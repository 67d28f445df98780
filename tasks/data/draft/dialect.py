"""Find how a CSV is written: encoding, delimiter, lines before the header, the header itself."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tasks.data.csv_table import OTHERS, CsvTable, is_blank, open_bytes, open_text
from tasks.data.values import NUMBER
from tasks.errors import DataError
from tasks.study import Source

_LINES = 200
"""Lines from which the delimiter and the lines before the header are found."""
_CHUNK = 1 << 20
_NUMBER = re.compile(NUMBER)


def dialect_of(path: Path, where: str) -> tuple[Source, CsvTable]:
    """Look through a file and find how it is written.

    Args:
        path: The CSV, plain or packed.
        where: The message's first words.

    Returns:
        The settings of ``source`` that read it, and the table.

    Raises:
        DataError: It is missing, empty or has no table.
    """
    if not path.is_file():
        raise DataError(f"{where}: no such file.")
    try:
        return _dialect_of(path, where)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, csv.Error) as error:
        why = str(error) if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        raise DataError(f"{where}: cannot be unpacked or read ({why}). Is it whole?") from None


def _dialect_of(path: Path, where: str) -> tuple[Source, CsvTable]:
    encoding = _encoding(path)
    source = Source.model_validate({"kind": "own", "encoding": encoding})
    with open_text(path, source) as (text, _):
        start = list(itertools.islice(text, _LINES))
    if not any(line.strip() for line in start):
        raise DataError(f"{where}: the file is empty. Expected a table of patients.")
    delimiter, skip = _delimiter(start)
    rows = [row for row in csv.reader(start[skip:], delimiter=delimiter) if not is_blank(row)]
    if not rows:
        raise DataError(f"{where}: the file has delimiters and nothing else.")
    header = _has_header(rows)
    fields = [name.strip() for name in rows[0]]
    if not header:
        fields = [f"column_{place}" for place in range(1, len(fields) + 1)]
    found = {"kind": "own", "encoding": encoding, "delimiter": delimiter, "skip": skip}
    found |= {"header": header, "fields": [] if header else fields}
    named = {name: name for name in fields if name and fields.count(name) == 1}
    table = CsvTable(path, fields, named, rows=0, multiline=True, has_blank=True)
    return Source.model_validate(found), table


def is_ascii(path: Path) -> bool:
    """Whether a file is the same text in every encoding but UTF-16."""
    with open_bytes(path) as file:
        return all(chunk.isascii() for chunk in iter(lambda: file.read(_CHUNK), b""))


def _encoding(path: Path) -> str:
    """The first of the encodings that all of the file is in."""
    with open_bytes(path) as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    for encoding in ("utf-8", "cp1252"):
        decoder = codecs.getincrementaldecoder(encoding)()
        with open_bytes(path) as file, contextlib.suppress(UnicodeDecodeError):
            while chunk := file.read(_CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
            return encoding
    return "iso-8859-1"


def _delimiter(lines: list[str]) -> tuple[str, int]:
    """The delimiter that gives most lines one width above 1, and the lines before that width."""
    best = (0.0, 1, ",", 0)
    for delimiter in OTHERS:
        # Commas that stand between digits alone are decimals, where another mark splits the rows.
        if delimiter == "," and ";" in lines[-1] and not re.search(r"[^0-9],|,[^0-9]", lines[-1]):
            continue
        reader = csv.reader(io.StringIO("".join(lines)), delimiter=delimiter)
        widths = [(line, len(row)) for line, row in _rows(reader)]
        if not widths:
            continue
        width, times = Counter(width for _, width in widths).most_common(1)[0]
        first = next(line for line, each in widths if each == width)
        # As many as agree, and more columns where several delimiters do.
        mark = (times / len(widths) if width > 1 else 0.0, width)
        if mark > best[:2]:
            best = (*mark, delimiter, first)
    return best[2], best[3]


def _rows(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Rows that say something, and the number of lines before each."""
    before = 0
    for row in reader:
        if not is_blank(row):
            yield before, row
        before = reader.line_num  # type: ignore[attr-defined]


def _has_header(rows: list[list[str]]) -> bool:
    """Whether the first row names columns: it has no number where the rows below have."""
    first, below = rows[0], rows[1:]
    if not below:
        return True
    numeric = [
        place
        for place in range(len(first))
        if sum(bool(_NUMBER.match(row[place].strip())) for row in below if place < len(row))
        > len(below) / 2
    ]
    return not any(_NUMBER.match(first[place].strip()) for place in numeric)
