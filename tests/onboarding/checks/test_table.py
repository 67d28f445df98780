"""The check of a table: counts and advice, and never a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.onboarding.checks.hospital import check_hospital
from tasks.onboarding.checks.table import check_table
from tasks.study import Study, read_study
from tasks.study.approval import terms_digest
from tests.onboarding.conftest import Consortium

SECRET = "Zebra7781"
STUDY = """\
name: small
title: Small
pooling: allowed
id: id
target: {column: outcome, positive: [1], negative: [0]}
columns:
  age: {type: integer, modality: demographics, range: [0, 120], unit: years}
  bmi: {type: number, modality: clinical, range: [8, 120], missing: [N/A], max_missing: 0.25}
  smoker: {type: flag, modality: lifestyle}
  ward: {type: category, modality: history, categories: [east, west]}
source: {kind: own}
hospitals:
  north: {path: north.csv}
  south: {path: south.csv}
split: {key: small}
"""
HEADER = ["id", "age", "bmi", "smoker", "ward", "outcome"]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY)
    return read_study(path)


def rows() -> list[list[str]]:
    return [
        [f"p{i}", str(30 + i), "22.5", str(i % 2), ("east", "west")[i % 2], str(int(i % 5 == 0))]
        for i in range(40)
    ]


def write(tmp_path: Path, table: list[list[str]], header: list[str] = HEADER) -> Path:
    path = tmp_path / "north.csv"
    path.write_text("\n".join(",".join(row) for row in [header, *table]) + "\n")
    return path


def judged(path: Path, study: Study) -> dict[str, tuple[str, str]]:
    found = check_table(path, study, "north")
    assert SECRET not in "".join(each.as_text() for each in found)
    return {each.name: (each.state, f"{each.found} {each.advice}") for each in found}


def test_a_valid_table_passes(tmp_path: Path, study: Study) -> None:
    table = rows()
    table[0][2] = "N/A"
    table[1][1] = "31.0"
    found = judged(write(tmp_path, table), study)
    assert {state for state, _ in found.values()} == {"ok"}
    assert found["quarantine"][1].startswith("0 of 40")


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("age", "130", "age: range"),
        ("age", SECRET, "age: type"),
        ("age", "30.5", "age: type"),
        ("age", "", "age: missing"),
        ("bmi", "NaN", "bmi: type"),
        ("smoker", "2", "smoker: type"),
        ("ward", SECRET, "ward: category"),
        ("outcome", "", "outcome: missing"),
        ("id", "", "id: missing"),
        ("id", "p3", "id: duplicate"),
    ],
)
def test_few_broken_rows_are_counted_by_rule(
    tmp_path: Path, study: Study, column: str, value: str, rule: str
) -> None:
    table = rows()
    table[10][HEADER.index(column)] = value
    state, words = judged(write(tmp_path, table), study)["quarantine"]
    assert state == "ok"
    assert words.startswith("1 of 40")
    assert f"({rule} 1)" in words


def test_a_column_in_another_unit_is_missing_with_its_range(tmp_path: Path, study: Study) -> None:
    table = rows()
    for row in table:
        row[1] = str(1000 + int(row[1]))
    found = judged(write(tmp_path, table), study)
    assert found["values, age: range"][0] == "missing"
    assert "0 to 120 years" in found["values, age: range"][1]
    assert found["quarantine"][0] == found["outcome"][0] == "missing"


def test_too_many_missing_values_are_counted(tmp_path: Path, study: Study) -> None:
    table = rows()
    for row in table[:11]:
        row[2] = "N/A"
    state, words = judged(write(tmp_path, table), study)["values, bmi: missing"]
    assert state == "missing"
    assert "11 of 40 rows lack it, at most 25% may" in words


def test_unknown_outcomes_are_counted(tmp_path: Path, study: Study) -> None:
    table = rows()
    for row in table[:3]:
        row[5] = SECRET
    state, words = judged(write(tmp_path, table), study)["values, outcome: value"]
    assert state == "missing"
    assert "3 of 40" in words


def test_a_missing_column_and_a_missing_file_are_named(tmp_path: Path, study: Study) -> None:
    path = write(tmp_path, [row[1:] for row in rows()], HEADER[1:])
    assert "lacks column id" in judged(path, study)["table"][1]
    assert "no such file" in judged(tmp_path / "absent.csv", study)["table"][1]


def test_the_whole_check_explains_how_to_approve_and_accepts_it(
    consortium: Consortium, tmp_path: Path, study: Study
) -> None:
    kit = consortium.add("north")
    path = tmp_path / "small.yaml"
    source = write(tmp_path, rows())
    found = {each.name: each for each in check_hospital(kit, path, source)}
    assert found["approved studies"].state == "missing"
    digest = terms_digest(study)
    assert digest in found["approved studies"].advice
    assert found["hospital in the study"].state == found["quarantine"].state == "ok"
    (kit / "approved.yaml").write_text(f"studies:\n  - name: small\n    digest: {digest}\n")
    found = {each.name: each for each in check_hospital(kit, path, source)}
    assert found["approved studies"].state == "ok"
