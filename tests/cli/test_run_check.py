"""A run's tables are checked while Airflow starts, once for each content of them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil
import pytest

from smoke.waits import until
from tasks.cli.run_check import tables_checked
from tasks.errors import DataError
from tasks.run.plan import Request, make_plan
from tasks.settings import Settings
from tests.data.conftest import HEADER, House, patients, sound_house, text_of

AGE = HEADER.index("age")


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A study of small tables."""
    return sound_house(tmp_path)


class Runs:
    """Asks for runs of a study."""

    def __init__(self, house: House) -> None:
        self.said: list[str] = []
        self.settings = Settings(home=house.folder / "home")
        self.file = str(house.folder / "small.yaml")
        self.number = 0

    def check(self, *overrides: str, resumed: bool = False, source: str | None = None) -> int:
        """Check a run's tables; return how many processes it took."""
        self.number += 1
        request = Request(study=self.file, overrides=list(overrides), source=source)
        plan = make_plan(request, f"r{self.number}", self.settings)
        before = set(psutil.Process().children())
        asked = None if resumed else request
        with tables_checked(plan, asked, self.settings, self.said.append) as checked:
            started = set(psutil.Process().children()) - before
            checked()
        return len(started)


def test_what_was_sound_is_checked_again_only_where_table_or_study_has_changed(
    house: House,
) -> None:
    house.north(text_of(patients()))
    runs = Runs(house)
    assert [runs.check(), runs.check()] == [1, 0]
    os.utime(house.folder / "north.csv", (1, 1))
    assert runs.check() == 1
    assert runs.check("columns.age.range=[0, 119]") == 1


def test_a_run_of_a_wrong_table_is_refused_before_it_begins(house: House) -> None:
    wrong = patients()
    for row in wrong[:60]:
        row[AGE] = "130"
    house.north(text_of(wrong))
    runs = Runs(house)
    assert runs.check(resumed=True) == 0
    for _ in range(2):
        with pytest.raises(DataError, match="no run was started") as caught:
            runs.check()
        assert "age: range: 60 of 80 values are outside 0 to 120" in str(caught.value)
        assert "hospital south: sound" in str(caught.value)
        assert [path.name for path in runs.settings.runs.iterdir()] == ["r1"]
    assert runs.check("columns.age.range=[0, 140]") == 1


def test_a_source_that_is_no_folder_is_told(house: House) -> None:
    house.north(text_of(patients()))
    with pytest.raises(DataError, match=r"hospital south, .*south[.]csv: no such file"):
        Runs(house).check(source=str(house.folder / "north.csv"))


def test_a_check_that_fails_or_lasts_leaves_it_to_the_steps(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.north(text_of(patients()))
    runs = Runs(house)
    monkeypatch.setattr("tasks.cli.run_check.DEADLINE", 0.01)
    assert runs.check() == 1
    assert "not done after 0.01 s" in runs.said[-1]
    monkeypatch.setattr("sys.executable", "/bin/false")
    monkeypatch.setattr("tasks.cli.run_check.DEADLINE", 60)
    assert runs.check() == 1
    assert "the steps will check them" in runs.said[-1]
    monkeypatch.setattr("tasks.cli.run_check.LARGEST", 100)
    assert runs.check() == 0


def test_the_check_ends_with_a_run_that_does_not_wait_for_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.north(text_of(patients()))
    runs, scratch = Runs(house), house.folder / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    request = Request(study=runs.file)
    plan = make_plan(request, "r", runs.settings)
    before = set(psutil.Process().children())
    with (
        contextlib.suppress(KeyboardInterrupt),
        tables_checked(plan, request, runs.settings, runs.said.append),
    ):
        [process] = set(psutil.Process().children()) - before
        until("the check to write", lambda: list(scratch.glob("fedrisk-check-*/lake")), 300)
        raise KeyboardInterrupt
    assert not process.is_running()
    assert not list(scratch.iterdir())
