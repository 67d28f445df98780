"""Look through a CSV before anybody reads it: encoding, delimiter, header and width of the rows.

Spark reads a broken file without a word (it replaces bytes, drops fields, fills with null), so
what is wrong is found here, in one streaming pass, and told with its place and never its value.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import DataError
from tasks.study import Source, Study

LONGEST = 1 << 24
"""Characters that a value may have: Python's limit of 131,072 refuses a note with a picture."""
csv.field_size_limit(LONGEST)
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
        fields: Names of the columns, in order.
        rows: Rows, without header and blank lines.
        multiline: Whether a quoted value holds a line break.
    """

    path: Path
    fields: list[str]
    rows: int
    multiline: bool


@contextmanager
def open_rows(path: Path, source: Source) -> Iterator[Iterator[list[str]]]:
    """Open a CSV as an iterator of its lines' fields, the header's included."""
    encoding = "utf-8-sig" if source.encoding == "utf-8" else source.encoding
    with path.open(encoding=encoding, newline="") as file:
        yield csv.reader(file, delimiter=source.delimiter)


def is_blank(row: list[str]) -> bool:
    """Whether a line holds nothing; such lines are no rows."""
    return not row or (len(row) == 1 and not row[0].strip())


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
        raise _undecodable(path, where) from None
    except csv.Error as error:
        raise DataError(f"{where}: not readable as CSV ({error}). Check the quotes.") from None


def _inspect(path: Path, study: Study, where: str, hospital: str | None) -> CsvTable:
    source = study.source
    ragged: list[int] = []
    rows, wrong, multiline = 0, 0, False
    fields: list[str] = list(source.fields)
    with open_rows(path, source) as lines:
        line_before, first = 0, True
        for row in lines:
            line: int = lines.line_num  # type: ignore[attr-defined]
            place, line_before = line_before + 1, line
            multiline = multiline or line > place
            if is_blank(row):
                continue
            if first:
                first = False
                _check_delimiter(row, source, study, where)
                if source.header:
                    fields = [name.strip() for name in row]
                    check_fields(fields, study, where, hospital)
                    continue
                check_fields(fields, study, where, hospital)
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
    return CsvTable(path=path, fields=fields, rows=rows, multiline=multiline)


def check_fields(fields: list[str], study: Study, where: str, hospital: str | None) -> None:
    """Compare a table's columns with the study's.

    Args:
        fields: The table's columns.
        study: Says which must and which may be there.
        where: The message's first words.
        hospital: Whose table it is; at some hospitals a column may be absent.

    Raises:
        DataError: A column is lacking, stands there twice or is one that the study does not name.
    """
    optional = {
        name
        for name, column in study.columns.items()
        if (hospital in column.optional_at if hospital else column.optional_at)
    }
    lacking = [name for name in study.raw_columns if name not in fields and name not in optional]
    if lacking:
        hint = "Check the header's spelling"
        if len(lacking) == len(set(study.raw_columns)):
            # Its names are not repeated here: the first line may be a patient's row.
            hint = "Does the file have a header? If not, set source.header: false and source.fields"
        raise DataError(
            f"{where}: lacks column{'s'[: len(lacking) > 1]} {', '.join(lacking)}. {hint}; "
            f"expected {', '.join(study.raw_columns)}."
        )
    lower = [name.lower() for name in fields]
    twice = sorted({name for name in fields if lower.count(name.lower()) > 1})
    if twice:
        raise DataError(f"{where}: column {', '.join(twice)} stands there twice. Remove one.")
    extra = [name for name in fields if name not in study.raw_columns]
    unknown = [name for name in extra if name not in study.source.ignore]
    if unknown:
        raise DataError(
            f"{where}: has {len(unknown)} column{'s'[: len(unknown) > 1]} that the study does not "
            f"name: {', '.join(repr(name) for name in unknown)}. Add to columns or to "
            "source.ignore of the study, or remove."
        )
    reserved = sorted({"_row", "reason"} & set(fields))
    if reserved:
        raise DataError(
            f"{where}: column {', '.join(reserved)} bears a name that fedrisk keeps for itself. "
            "Rename it."
        )


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


def _undecodable(path: Path, where: str) -> DataError:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                return DataError(f"{where}: is UTF-16. Expected UTF-8: convert the file.")
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return DataError(
                    f"{where}: not UTF-8 at byte {offset + error.start} (line {number}). Convert "
                    "the file, or set source.encoding: iso-8859-1 if that is what it is."
                )
            offset += len(line)
    return DataError(f"{where}: not UTF-8. Convert the file.")
