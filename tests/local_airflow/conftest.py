"""One embedded Airflow for all tests of this folder, because its start is slow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests_processes import processes_of

from tasks.errors import FedriskError
from tasks.local_airflow.server import Running, airflow_running
from tasks.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, checkout: Path) -> Settings:
    """Settings of a new home."""
    return Settings(home=tmp_path / "home", studies=checkout / "dags" / "studies")


@dataclass(frozen=True)
class FailedStart:
    """What a first start left whose block raised.

    Attributes:
        settings: Its home.
        left: Command lines of processes that still ran, of those that had run.
        made: When the logs of the home's creation were written, in ns.
    """

    settings: Settings
    left: list[str]
    made: dict[Path, int]


@pytest.fixture(scope="module")
def failed_start(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> FailedStart:
    """A new home's first start, in which something goes wrong."""
    home = tmp_path_factory.mktemp("embedded")
    settings = Settings(home=home, studies=checkout / "dags" / "studies")
    with contextlib.suppress(FedriskError), airflow_running(settings, "run", print) as found:
        assert processes_of(home, grace=0)
        raise FedriskError("on purpose")
    logs = [found.home.logs / name for name in ("database.log", "reading-dags.log")]
    return FailedStart(settings, processes_of(home), {p: p.stat().st_mtime_ns for p in logs})


@pytest.fixture(scope="module")
def running(failed_start: FailedStart) -> Iterator[Running]:
    """A running Airflow as `fedrisk run` starts it, in the home of the failed start."""
    with airflow_running(failed_start.settings, "run", print) as found:
        yield found
