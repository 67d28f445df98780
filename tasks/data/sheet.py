"""A sheet of a spreadsheet (Excel, LibreOffice) as an Arrow dataset of text."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from tasks.data.csv_table import is_blank
from tasks.errors import DataError
from tasks.study import Source


def open_sheet(path: Path, source: Source, where: str) -> Any:
    """Read a sheet, which a spreadsheet keeps below a million rows.

    Args:
        path: The file: ``.xlsx``, ``.xls``, ``.xlsb`` or ``.ods``.
        source: Which sheet, and the lines before its header.
        where: The message's first words.

    Returns:
        An Arrow dataset with one column of text for each named column of the header.

    Raises:
        DataError: It is missing, no spreadsheet, has no such sheet, or no header and row.
    """
    import pyarrow as pa
    from pyarrow import dataset
    from python_calamine import CalamineError, CalamineWorkbook

    if not path.is_file():
        raise DataError(f"{where}: no such file. Check --source and the study's paths.")
    try:
        with CalamineWorkbook.from_path(str(path)) as book:
            names = book.sheet_names
            if source.sheet is not None and source.sheet not in names:
                raise DataError(
                    f"{where}: has no sheet {source.sheet!r}; its sheets are "
                    f"{', '.join(map(repr, names))}. Set source.sheet."
                )
            sheet = book.get_sheet_by_name(source.sheet or names[0])
            lines = sheet.to_python(skip_empty_area=False)[source.skip :]
    except (CalamineError, OSError) as error:
        raise DataError(
            f"{where}: not readable as a spreadsheet ({type(error).__name__}). Check source.format."
        ) from None
    rows = [
        row for row in ([_text(value) for value in line] for line in lines) if not is_blank(row)
    ]
    if len(rows) < 2:
        raise DataError(f"{where}: the sheet has no header with rows. Expected a row a patient.")
    fields = [name.strip() for name in rows[0]]
    # A name that stands there twice names nothing; where there is no header it may be a value.
    columns = zip(*rows[1:], strict=True)
    named = {n: list(c) for n, c in zip(fields, columns, strict=True) if n and fields.count(n) == 1}
    schema = pa.schema([(name, pa.string()) for name in named])
    return dataset.dataset(pa.table(named, schema=schema))


def _text(value: object) -> str:
    """A cell as text: a whole number without decimals, yes and no as 1 and 0, a day as ISO 8601."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else str(value)
