"""Bad input ends with exit code 2 and words that name the hospital, the column and the count."""

from __future__ import annotations

from collections import Counter

import pytest

from tasks.data.validate import UNCHANGED
from tasks.errors import DataError, ExitCode, StudyError
from tests.data.conftest import HEADER, House, Rows, patients, read, text_of

SECRET = "Zebra7781"
"""A value that must not stand in any message."""


def changed(column: str, value: str, share: float) -> Rows:
    rows = patients()
    for row in rows[: round(share * len(rows))]:
        row[HEADER.index(column)] = value
    return rows


def without(column: str) -> str:
    place = HEADER.index(column)
    lines = [line[:place] + line[place + 1 :] for line in [HEADER, *patients()]]
    return text_of(lines[1:], lines[0])


def refused(house: House, *steps: str, hospital: str | None = "north") -> str:
    with pytest.raises(DataError) as caught:
        house.steps("bad", *steps, hospital=hospital)
    message = str(caught.value)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert SECRET not in message
    assert "north" in message
    left = house.settings.runs / "bad" / "manifests" / f"{steps[-1]}.north.json"
    assert not left.exists()
    return message


def test_a_missing_file_is_named(house: House) -> None:
    (house.folder / "north.csv").unlink()
    assert "north.csv: no such file" in refused(house, "collect")


@pytest.mark.parametrize(
    ("content", "words"), [("", "is empty"), (",".join(HEADER) + "\n", "no row")]
)
def test_an_empty_table_is_told_apart_from_one_without_rows(
    house: House, content: str, words: str
) -> None:
    house.north(content)
    assert words in refused(house, "collect")


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolon"), ("\t", "tab"), ("|", "bar")])
def test_a_wrong_delimiter_is_recognised(house: House, delimiter: str, word: str) -> None:
    house.north(text_of(patients(), delimiter=delimiter))
    message = refused(house, "collect")
    assert word in message
    assert "source.delimiter" in message


def test_a_missing_column_is_named(house: House) -> None:
    house.north(without("age"))
    assert "lacks column age" in refused(house, "collect")


def test_an_extra_column_is_ignored_and_counted_and_may_be_refused(house: House) -> None:
    rows = [[*row, SECRET] for row in patients()]
    house.north(text_of(rows, [*HEADER, "free note"]))
    done = house.steps("ignored", "collect")
    assert (done.figures["rows"], done.figures["ignored"]) == (80, 1)
    house.study(source=", extra: refuse")
    assert "'free note'" in refused(house, "collect")


def test_a_file_without_header_gives_no_value_of_its_first_row_away(house: House) -> None:
    rows = patients()
    rows[0][0] = SECRET
    house.north(text_of(rows[1:], rows[0]))
    assert "source.header" in refused(house, "collect")


def test_bytes_that_are_not_utf8_are_told_by_place(house: House) -> None:
    rows = patients()
    rows[2][2] = "M\xe9le"
    house.north(text_of(rows).encode("iso-8859-1"))
    message = refused(house, "collect")
    assert "not UTF-8 at byte" in message
    assert "line 4" in message
    assert "iso-8859-1" in message


def test_ragged_rows_are_counted_and_told_by_line(house: House) -> None:
    rows = patients()
    rows[5].append(SECRET)
    rows[9].pop()
    house.north(text_of(rows))
    message = refused(house, "collect")
    assert "2 of 80 rows" in message
    assert "line 7, 11" in message


def test_a_row_that_breaks_a_rule_goes_to_quarantine_and_its_value_onto_no_page(
    house: House,
) -> None:
    broken = [
        ("age", SECRET, "age: type"),
        ("age", "NaN", "age: type"),
        ("age", '"67,5"', "age: type"),
        ("age", "130", "age: range"),
        ("age", "", "age: missing"),
        ("visits", "2.5", "visits: type"),
        ("sex", SECRET, "sex: category"),
        ("smoker", "2", "smoker: type"),
        ("id", "", "id: missing"),
        ("id", "p7-40", "id: duplicate"),
        ("stroke", "", "stroke: missing"),
        ("stroke", SECRET, "stroke: value"),
    ]
    rows = patients()
    for row, (column, value, _) in zip(rows, broken, strict=False):
        row[HEADER.index(column)] = value
    house.north(text_of(rows))
    done = house.steps("one", "collect", "validate")
    reasons = [reason for _, _, reason in broken]
    assert done.figures["reasons"] == Counter(reasons)
    assert done.figures["rows"] == len(rows) - len(broken)
    # Of two rows with one id the first is kept: here the later, sound one is the copy.
    quarantine = read(done.tables["quarantine"])
    assert all(set(row) == {*HEADER, "_row", "reason"} for row in quarantine)
    kept = {row["_row"]: row["reason"] for row in quarantine}
    place = reasons.index("id: duplicate") + 1
    assert kept.pop(41) == "id: duplicate"
    assert kept == {i: reason for i, reason in enumerate(reasons, 1) if i != place}
    pages = list((house.settings.runs / "one" / "files").rglob("*.html"))
    assert pages
    assert not any(SECRET in page.read_text() for page in pages)


def test_rules_that_60_percent_of_the_rows_break_stop_the_hospital_and_are_all_named(
    house: House,
) -> None:
    rows = patients()
    values = {"id": "twin", "age": SECRET, "sex": SECRET, "smoker": "2", "bmi": "N/A"}
    values["visits"] = "99"
    for row in rows[:48]:
        for column, value in values.items():
            row[HEADER.index(column)] = value
    house.north(text_of(rows))
    message = refused(house, "collect", "validate")
    for failed in ("age: type", "visits: range", "sex: category", "smoker: type"):
        assert f"{failed}: 48 of 80 values" in message
    assert "id: duplicate: 48 of 80 ids" in message
    assert "bmi: missing: 64% of 80 rows" in message


def test_a_column_without_any_value_stops_the_hospital(house: House) -> None:
    house.north(text_of(changed("bmi", "", 1.0)))
    assert "bmi: missing: 100%" in refused(house, "collect", "validate")


def test_a_column_without_any_value_is_fine_where_it_is_optional(house: House) -> None:
    house.study(change=("[south]", "[north]"))
    house.north(text_of(changed("bmi", "", 1.0)))
    done = house.steps("optional", "collect", "validate", "features")
    assert done.figures["rows"] == 80
    assert all(row["bmi"] is None and row["bmi__missing"] == 1 for row in read(done.tables["gold"]))


@pytest.mark.parametrize(
    ("value", "words"), [("0", "no row is positive"), ("1", "no row is negative")]
)
def test_a_hospital_with_one_outcome_stops(house: House, value: str, words: str) -> None:
    house.north(text_of(changed("stroke", value, 1.0)))
    assert words in refused(house, "collect", "validate")


def test_a_target_with_three_values_stops_and_counts_the_unknown_ones(house: House) -> None:
    house.north(text_of(changed("stroke", SECRET, 0.3)))
    message = refused(house, "collect", "validate")
    assert "24 of 80 rows have one of 1 values" in message


def test_a_failed_table_leaves_the_last_good_silver(house: House) -> None:
    good = house.steps("good", "collect", "validate").tables["silver"]
    before = read(good)
    house.north(text_of(changed("age", "130", 0.6)))
    refused(house, "collect", "validate")
    again = good.model_copy(update={"version": good.version})
    assert read(again) == before
    newest = sorted((house.settings.home / "lake/north/small/silver/_delta_log").glob("*.json"))
    assert int(newest[-1].stem) == good.version


def test_braces_in_a_unit_are_text(house: House) -> None:
    house.study(change=("range: [0, 120]", 'range: [0, 120], unit: "{score}"'))
    house.north(text_of(changed("age", "130", 0.6)))
    assert "outside 0 to 120 {score}" in refused(house, "collect", "validate")


@pytest.mark.parametrize("name", ["Reason", "_row"])
def test_a_target_may_not_bear_the_name_of_a_column_that_is_added(house: House, name: str) -> None:
    house.study(change=("column: stroke", f"column: {name}"))
    with pytest.raises(StudyError, match=f"columns {name} bear names that fedrisk adds"):
        house.steps("bad", "collect")


def test_a_table_that_is_judged_on_counts_is_judged_alike(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.steps("sound", "collect", "validate")
    faults = [
        {"id": "twin", "age": SECRET, "sex": SECRET, "smoker": "2", "bmi": "N/A", "visits": "99"},
        {"stroke": SECRET, "age": "", "visits": "2.5"},
        {"stroke": "1", "id": ""},
        {"stroke": "0", "age": "1e400"},
        {},
    ]
    for number, values in enumerate(faults):
        rows = patients()
        for row in rows[: 80 if "stroke" in values else 48]:
            for column, value in values.items():
                row[HEADER.index(column)] = value
        house.north(text_of(rows))
        said = []
        for bound in (10**9, 0):
            monkeypatch.setattr("tasks.data.validate.ABOVE", bound)
            run = f"r{number}-{bound}"
            if values:
                with pytest.raises(DataError) as caught:
                    house.steps(run, "collect", "validate")
                said.append(str(caught.value).partition(UNCHANGED)[0])
            else:
                done = house.steps(run, "collect", "validate")
                said.append(str({**done.figures, "target_rate_before": 0, "expectations": 0}))
                assert (house.settings.runs / run / done.files["data_docs"]).is_file()
        assert said[0] == said[1]
