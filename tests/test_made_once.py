"""What takes minutes to make is made by one of the test processes that need it."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from made_once import SHARED, made_once


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(SHARED, str(tmp_path / "common"))
    return tmp_path / "common"


def test_the_first_makes_it_and_the_next_finds_it(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def fails(made: Path) -> None:
        (made / "half").touch()
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        made_once("run", fails, tmp_path_factory)
    for _ in range(2):
        made = made_once(
            "run", lambda made: (made / "whole").touch(exist_ok=False), tmp_path_factory
        )
        assert [path.name for path in made.iterdir()] == ["whole"]


def test_another_that_makes_it_is_waited_for_no_longer_than_the_deadline(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder.mkdir()
    with (folder / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match=r"makes run for more than 0\.1 s"):
            made_once("run", lambda made: None, tmp_path_factory, deadline=0.1)
