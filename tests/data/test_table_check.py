"""`fedrisk study check --tables` says what a run would say, and leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.cli import main
from tests.data.conftest import HEADER, House, patients, text_of


def checked(house: House, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["study", "check", str(house.folder / "small.yaml"), *arguments])
    return code, capsys.readouterr().out


@pytest.fixture(autouse=True)
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDRISK_HOME", str(tmp_path / "never"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()


def test_tables_are_told_apart_hospital_by_hospital(
    house: House, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [[*row, "x"] for row in patients()]
    rows[3][HEADER.index("age")] = "130"
    house.north(text_of(rows, [*HEADER, "note"]))
    code, said = checked(house, capsys, "--tables")
    assert code == 0
    assert "hospital north: sound: 79 of 80 rows are kept" in said
    assert "broken rules: age: range 1; columns that the study does not name: 1" in said
    assert "hospital south: sound: 40 of 40 rows are kept, 8 of them positive\n" in said
    wrong = patients()
    for row in wrong[:60]:
        row[HEADER.index("age")] = "130"
    house.north(text_of(wrong))
    code, said = checked(house, capsys, "--tables")
    assert code == 2
    assert "age: range: 60 of 80 values are outside 0 to 120" in said
    assert "Data Docs" not in said
    assert "hospital south: sound" in said
    assert not (tmp_path / "never").exists()
    assert not list((tmp_path / "scratch").iterdir())


def test_a_table_that_is_not_there_and_one_in_its_place(
    house: House, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    house.north(text_of(patients()))
    (house.folder / "north.csv").rename(tmp_path / "scratch" / "north.csv")
    (house.folder / "south.csv").rename(tmp_path / "scratch" / "south.csv")
    code, said = checked(house, capsys, "--tables")
    assert code == 2
    assert said.count("no such file") == 2
    code, said = checked(house, capsys, "--source", str(tmp_path / "scratch"))
    assert code == 0
    assert said.count(": sound: ") == 3
    code, said = checked(house, capsys)
    assert "hospital north" not in said
