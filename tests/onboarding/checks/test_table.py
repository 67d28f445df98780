"""A hospital checks its own table by the steps of a run: counts and advice, and never a value."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from tasks.data.table_check import TableCheck
from tasks.onboarding.checks.hospital import check_hospital
from tasks.onboarding.checks.result import CheckResult
from tasks.settings import Settings
from tasks.study import read_study
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
DEALT = (
    ("source: {kind: own}", "source: {kind: deal, path: all.csv}"),
    ("{path: north.csv}", "{share: {rows: 40, positive_rate: 0.2}}"),
    ("{path: south.csv}", "{share: {rows: 40, positive_rate: 0.2}}"),
)
BY_SITE = (
    ("source: {kind: own}", "source: {kind: site_column, site_column: clinic, path: all.csv}"),
    ("{path: north.csv}", "{site: N}"),
    ("{path: south.csv}", "{site: S}"),
)


def rows() -> list[list[str]]:
    return [
        [f"p{i}", str(30 + i), "22.5", str(i % 2), ("east", "west")[i % 2], str(int(i % 5 == 0))]
        for i in range(40)
    ]


class Checked:
    """A hospital's kit, its table and a study, checked as the command does."""

    def __init__(self, consortium: Consortium, folder: Path) -> None:
        self.kit, self.folder = consortium.add("north"), folder
        self.study, self.source = folder / "small.yaml", folder / "north.csv"
        self.study.write_text(STUDY)

    def change(self, *changes: tuple[str, str]) -> None:
        text = self.study.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.study.write_text(text)

    def write(self, table: list[list[str]], header: list[str] = HEADER) -> None:
        self.source.write_text("\n".join(",".join(row) for row in [header, *table]) + "\n")

    def all(self) -> dict[str, CheckResult]:
        settings = Settings(home=self.folder / "home")
        found = check_hospital(self.kit, settings, self.study, str(self.source))
        assert SECRET not in "".join(each.as_text() for each in found)
        assert not (self.folder / "home").exists()
        return {each.name: each for each in found}

    def table(self) -> CheckResult:
        return self.all()["table"]


@pytest.fixture
def checked(consortium: Consortium, tmp_path: Path) -> Checked:
    return Checked(consortium, tmp_path)


OTHERS_IGNORED = (
    *BY_SITE[1:],
    (
        "source: {kind: own}",
        "source: {kind: site_column, site_column: clinic, path: all.csv, other_sites: ignore}",
    ),
)


@pytest.mark.parametrize(
    "changes",
    [(), DEALT, BY_SITE, OTHERS_IGNORED],
    ids=["own", "deal", "site_column", "other_sites"],
)
def test_a_sound_table_passes_whatever_kind_of_source_the_study_has(
    checked: Checked, changes: tuple[tuple[str, str], ...]
) -> None:
    checked.change(*changes)
    checked.write(rows())
    found = checked.table()
    assert found.state == "ok"
    assert "40 of 40 rows are kept, 8 of them positive" in found.found


def test_a_few_broken_rows_are_counted_by_rule(checked: Checked) -> None:
    table = rows()
    table[10][1], table[11][4] = "130", SECRET
    checked.write(table)
    found = checked.table()
    assert found.state == "ok"
    assert "38 of 40 rows are kept" in found.found
    assert "age: range 1" in found.found
    assert "ward: category 1" in found.found


def test_what_would_end_the_run_is_missing_here(checked: Checked) -> None:
    table = rows()
    for row in table:
        row[1] = str(1000 + int(row[1]))
    checked.write(table)
    assert checked.table().state == "missing"
    assert "age" in checked.table().found
    table = rows()
    for row in table[:30]:
        row[5] = SECRET
    checked.write(table)
    assert checked.table().state == "missing"
    assert "outcome" in checked.table().found


def test_a_missing_column_and_a_missing_file_are_named(checked: Checked) -> None:
    checked.write([row[1:] for row in rows()], HEADER[1:])
    assert "lacks column id" in checked.table().found
    checked.source.unlink()
    assert checked.table().state == "missing"
    assert "north.csv" in checked.table().found


def test_a_study_without_this_hospital_cannot_judge_its_table(checked: Checked) -> None:
    checked.change(("  north:", "  west:"))
    checked.write(rows())
    assert checked.table().state == "unknown"


def test_the_whole_check_explains_how_to_approve_and_accepts_it(checked: Checked) -> None:
    checked.write(rows())
    found = checked.all()
    assert found["approved studies"].state == "missing"
    digest = terms_digest(read_study(checked.study))
    assert digest in found["approved studies"].advice
    assert found["hospital in the study"].state == found["table"].state == "ok"
    approved = f"studies:\n  - name: small\n    digest: {digest}\n"
    (checked.kit / "approved.yaml").write_text(approved)
    assert checked.all()["approved studies"].state == "ok"


def test_an_extract_may_still_have_the_column_of_its_site(checked: Checked) -> None:
    checked.change(*BY_SITE, ("path: all.csv}", "path: all.csv, extra: refuse}"))
    checked.write([[*row, "N"] for row in rows()], [*HEADER, "clinic"])
    assert checked.table().state == "ok"


def test_a_table_of_any_format_is_read(checked: Checked) -> None:
    checked.change(("{kind: own}", "{kind: own, format: parquet}"))
    checked.source = checked.source.with_suffix(".parquet")
    pd.DataFrame(rows(), columns=HEADER).to_parquet(checked.source)
    assert "40 of 40 rows are kept" in checked.table().found
    checked.source = checked.folder / "north.pq"
    assert checked.table().state == "missing"


def test_an_address_that_does_not_fit_the_study_is_told(checked: Checked) -> None:
    checked.change(
        ("{kind: own}", "{kind: own, format: sql, table: visits}"),
        *((f"path: {x}.csv", f"path: postgresql://db/{x}") for x in ("north", "south")),
    )
    checked.write(rows())
    found = checked.table()
    assert found.state == "missing"
    assert "expected postgresql://host[:port]/database" in found.found


def test_a_study_of_spark_is_checked_where_spark_is_not_installed(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked.change(("split: ", "compute: {engine: spark}\nsplit: "))
    checked.write(rows())
    monkeypatch.setattr("tasks.data.table_check.find_spec", lambda _: None)
    assert checked.table().state == "ok"


def test_the_table_is_read_with_the_kits_credentials(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def look(*_: object) -> TableCheck:
        seen.append(os.environ.get("PGUSER"))
        return TableCheck("north")

    monkeypatch.setattr("tasks.data.table_check.check_own_table", look)
    monkeypatch.delenv("PGUSER", raising=False)
    credentials = checked.kit / "credentials.env"
    credentials.write_text((credentials.read_text() if credentials.exists() else "") + "PGUSER=n\n")
    assert checked.table().state == "ok"
    assert seen == ["n"]
    assert "PGUSER" not in os.environ
