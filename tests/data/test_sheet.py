"""A spreadsheet reaches the same silver as a CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from tasks.errors import DataError, StudyError
from tasks.run.manifest import Manifest
from tests.data.conftest import HEADER, House, by_patient, patients


def cells() -> list[list[Any]]:
    """The rows as Excel holds them: numbers, yes and no, empty cells."""
    return [
        [r[0], int(r[1]), r[2], r[3] == "1", None if r[4] == "N/A" else float(r[4]), int(r[5]),
         int(r[6])]
        for r in patients()
    ]  # fmt: skip


def plain(book: openpyxl.Workbook) -> None:
    for row in [HEADER, *cells()]:
        book.active.append(row)


def second(book: openpyxl.Workbook) -> None:
    book.active.append(["notes"])
    sheet = book.create_sheet("Patients 2024")
    for row in [HEADER, *cells()]:
        sheet.append(row)


def untidy(book: openpyxl.Workbook) -> None:
    sheet = book.active
    for row in [["Ward 7"], [], [None, *HEADER, "when"]]:
        sheet.append(row)
    for i, row in enumerate(cells()):
        sheet.append([i, *row, "2020-01-02"])
        if i % 30 == 0:
            sheet.append([None, " "])


KINDS: dict[str, tuple[Callable[[openpyxl.Workbook], None], str]] = {
    "as Excel writes it": (plain, ""),
    "a named sheet": (second, ", sheet: Patients 2024"),
    "a title, blank rows and an index": (untidy, ", skip: 1"),
}


def put(house: House, make: Callable[[openpyxl.Workbook], None], source: str) -> Path:
    house.study(source=source, change=("{path: north.csv}", "{path: north.xlsx}"))
    file = house.folder / "small.yaml"
    file.write_text(file.read_text().replace("format: csv", "format: xlsx"))
    book = openpyxl.Workbook()
    make(book)
    book.save(house.folder / "north.xlsx")
    return house.folder / "north.xlsx"


@pytest.mark.parametrize("kind", KINDS)
def test_it_reaches_the_same_silver(house: House, sound: dict[str, Manifest], kind: str) -> None:
    put(house, *KINDS[kind])
    silver = house.steps("r", "collect", "validate").tables["silver"]
    assert by_patient(silver) == by_patient(sound["validate"].tables["silver"])


def test_a_sheet_that_is_dealt_out_reaches_the_hospitals(house: House) -> None:
    path = put(house, plain, "")
    file = house.folder / "small.yaml"
    text = file.read_text().replace("kind: own", "kind: site_column, site_column: ward")
    text = text.replace("{path: north.xlsx}", "{site: A}").replace("{path: south.csv}", "{site: B}")
    file.write_text(text)
    book = openpyxl.Workbook()
    for row in [[*HEADER, "ward"], *([*row, "AB"[i % 2]] for i, row in enumerate(cells()))]:
        book.active.append(row)
    book.save(path)
    house.plan("r", source=str(path))
    assert house.steps("r", "deal", hospital=None).figures["rows"] == 80
    assert house.steps("r", "collect").figures["rows"] == 40


@pytest.mark.parametrize(
    ("make", "source", "message"),
    [
        (second, ", sheet: Ward", "has no sheet 'Ward'; its sheets are 'Sheet', 'Patients 2024'"),
        (second, "", "no header with rows"),
    ],
)
def test_what_is_wrong_with_a_sheet_is_said(
    house: House, make: Callable[[openpyxl.Workbook], None], source: str, message: str
) -> None:
    put(house, make, source)
    with pytest.raises(DataError, match=message):
        house.steps("r", "collect")


def test_what_is_no_spreadsheet_is_said(house: House) -> None:
    put(house, plain, "").write_text("id,age\n1,2\n")
    with pytest.raises(DataError, match=r"not readable as a spreadsheet"):
        house.steps("r", "collect")


@pytest.mark.parametrize("wrong", ["sheet: a", "table: a", "format: sql", "query: a"])
def test_settings_of_another_format_are_refused(house: House, wrong: str) -> None:
    house.study()
    file = house.folder / "small.yaml"
    text = file.read_text()
    change = wrong if wrong.startswith("format") else f"format: csv, {wrong}"
    file.write_text(text.replace("format: csv", change))
    with pytest.raises(StudyError):
        house.plan("r")
