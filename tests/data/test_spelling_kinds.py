"""A table that is spelled otherwise than the study reaches the same silver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import DataError, StudyError
from tasks.run.manifest import Manifest
from tasks.study import read_study
from tests.data.conftest import HEADER, House, Rows, by_patient, patients, text_of

AGE, SEX, SMOKER, BMI, VISITS, STROKE = range(1, 7)


def spelled(column: int, words: dict[str, str]) -> Rows:
    rows = patients()
    for i, row in enumerate(rows):
        # Each second value stays as the study spells it.
        row[column] = words.get(row[column], row[column]) if i % 2 else row[column]
    return rows


def each(column: int, change: Callable[[str], str]) -> Rows:
    return [[*row[:column], change(row[column]), *row[column + 1 :]] for row in patients()]


def comma(text: str) -> str:
    return text.replace(".", ",")


NORTH = "{path: north.csv}"
CATEGORIES = "categories: [Female, Male]"
KINDS: dict[str, tuple[tuple[str, str], str, list[str], Rows]] = {
    "flags as yes and no": (("", ""), "", HEADER, spelled(SMOKER, {"0": "no", "1": "Yes"})),
    "flags as true and false": (("", ""), "", HEADER, spelled(SMOKER, {"0": "FALSE", "1": "True"})),
    "flags as letters": (("", ""), "", HEADER, spelled(SMOKER, {"0": "N", "1": "y"})),
    "flags with decimals": (("", ""), "", HEADER, spelled(SMOKER, {"0": "0.0", "1": " 1.00"})),
    "categories in another case": (("", ""), "", HEADER, spelled(SEX, {"Female": "FEMALE\u00a0"})),
    "codes of the study": (
        (CATEGORIES, CATEGORIES + ", codes: {w: Female, 1: Male}"), "", HEADER,
        spelled(SEX, {"Female": "W", "Male": "1.0"}),
    ),
    "codes of the hospital": (
        (NORTH, "{path: north.csv, codes: {sex: {w: female, m: Male}}}"), "", HEADER,
        spelled(SEX, {"Female": "w", "Male": "M"}),
    ),
    "codes of the outcome": (
        (NORTH, "{path: north.csv, codes: {stroke: {event: 1, none: 0}}}"), "", HEADER,
        spelled(STROKE, {"1": "Event", "0": "none"}),
    ),
    "codes of a number": (
        ("range: [0, 50]}", 'range: [0, 50], codes: {"> 8": 9, "<0.5": 0}}'), "", HEADER,
        spelled(VISITS, {"9": ">  8", "0": "<0.5"}),
    ),
    "a code for missing": (
        ("missing: [N/A]", "missing: [N/A], codes: {-9: N/A}"), "", HEADER,
        spelled(BMI, {"N/A": "-9.0"}),
    ),
    "a marker in another case": (("", ""), "", HEADER, spelled(BMI, {"N/A": "n/a"})),
    "names of the hospital": (
        (NORTH, '{path: north.csv, columns: {age: "Alter (Jahre)", id: Fall, stroke: "Schlag=1"}}'),
        "", ["Fall", "Alter (Jahre)", *HEADER[2:-1], "Schlag=1"], patients(),
    ),
    "an alias": (
        ("range: [0, 120]}", "range: [0, 120], aliases: [Age, AGE_Y]}"), "",
        ["id", "AGE_Y", *HEADER[2:]], patients(),
    ),
    "a decimal comma": (("", ""), ", delimiter: ';', decimal: ','", HEADER, each(BMI, comma)),
    "decimal commas in flags and outcomes": (
        ("", ""), ", delimiter: ';', decimal: ','", HEADER,
        [[*r[:3], f"{r[3]},0", comma(r[4]), f"{r[5]},0", f"{r[6]},0"] for r in patients()],
    ),
    "a code in place of a spelling of flags": (
        ("smoker: {type: flag, modality: lifestyle}",
         "smoker: {type: flag, modality: lifestyle, codes: {F: 1, M: 0}}"), "", HEADER,
        spelled(SMOKER, {"0": "m", "1": "f"}),
    ),
    "marks between thousands": (
        ("range: [0, 50]", "range: [0, 50000]"), ", delimiter: ';', decimal: ',', thousands: '.'",
        HEADER, each(BMI, comma),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_it_reaches_the_same_silver(house: House, sound: dict[str, Manifest], name: str) -> None:
    change, source, header, rows = KINDS[name]
    house.study(source=source, change=change)
    house.north(text_of(rows, header, ";" if source else ","))
    done = house.steps("r", "collect", "validate")
    assert done.figures["quarantined"] == 0
    assert by_patient(done.tables["silver"]) == by_patient(sound["validate"].tables["silver"])


def test_marks_between_thousands_are_read_where_they_can_stand(house: House) -> None:
    house.study(
        source=", delimiter: ';', decimal: ',', thousands: '.'",
        change=("range: [0, 50]", "range: [0, 50000]"),
    )
    rows = each(VISITS, lambda text: f"{text}.500" if text != "0" else text)
    for row in rows:
        row[BMI] = comma(row[BMI])
    rows[0][VISITS] = "12.34"
    house.north(text_of(rows, delimiter=";"))
    done = house.steps("r", "collect", "validate")
    assert done.figures["reasons"] == {"visits: type": 1}
    by_id = {row[0]: int(row[VISITS].replace(".", "")) for row in rows[1:]}
    assert {r["patient"]: r["visits"] for r in by_patient(done.tables["silver"])} == by_id


def test_an_outcome_that_is_not_known_goes_to_quarantine(house: House) -> None:
    target = '{column: stroke, positive: ["1"], negative: ["0"]'
    house.study(change=(target, target + ", missing: [unknown]"))
    house.north(text_of(spelled(STROKE, {"1": "Unknown"})))
    done = house.steps("r", "collect", "validate")
    assert done.figures["reasons"] == {"stroke: missing": 8}


@pytest.mark.parametrize("repeated", [30, 50])
def test_rows_with_repeated_ids_are_few_or_end_the_run(house: House, repeated: int) -> None:
    rows = patients()
    for i in range(repeated // 2):
        rows[2 * i + 1][0] = rows[2 * i][0]
    house.north(text_of(rows))
    if repeated <= 40:
        assert house.steps("r", "collect", "validate").figures["quarantined"] == repeated // 2
        return
    with pytest.raises(DataError, match="stand there more than once"):
        house.steps("r", "collect", "validate")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((CATEGORIES, CATEGORIES + ", codes: {w: Woman}"), "'w' stands for 'Woman'"),
        ((CATEGORIES, CATEGORIES + ", codes: {01: Male}"), "put it in quotes"),
        ((CATEGORIES, CATEGORIES + ", missing: [MALE]"), "both categories and missing"),
        (("modality: lifestyle}", "modality: lifestyle, missing: [N]}"), "spelling of yes or no"),
        (
            (NORTH, "{path: north.csv, codes: {sex: {1: m}}}"), "'1' stands for 'm'",
        ),
        (("range: [0, 50]}", 'range: [0, 50], codes: {"> 8": 90}}'), "a number in the column's"),
        ((NORTH, "{path: north.csv, codes: {sexx: {w: Female}}}"), "names ['sexx']"),
        ((NORTH, "{path: north.csv, columns: {sexx: s}}"), "names ['sexx']"),
        ((NORTH, "{path: north.csv, columns: {sex: s, age: s}}"), "one name to two columns"),
        (("range: [0, 120]}", "range: [0, 120], aliases: [bmi]}"), "['bmi'] are names of another"),
        (('negative: ["0"]', 'negative: ["0"], missing: ["1"]'), "both positive and missing"),
        (("format: csv", "format: csv, decimal: ',', thousands: ','"), "the same mark"),
        (("format: csv", "format: parquet, decimal: ','"), "are for a CSV"),
    ],
)  # fmt: skip
def test_a_spelling_that_cannot_be_meant_is_refused(
    house: House, change: tuple[str, str], message: str
) -> None:
    house.study(change=change)
    with pytest.raises(StudyError) as refused:
        read_study(Path(house.folder / "small.yaml"))
    assert message in str(refused.value)


def test_one_field_is_not_read_as_two_columns(house: House) -> None:
    house.study(change=(NORTH, "{path: north.csv, columns: {age: visits}}"))
    with pytest.raises(DataError, match="column visits is read as age and as visits"):
        house.steps("r", "collect")
