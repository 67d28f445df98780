"""One embedded Airflow for all tests of this folder, because its start is slow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.local_airflow.server import Running, airflow_running
from tasks.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, checkout: Path) -> Settings:
    """Settings of a new home."""
    return Settings(home=tmp_path / "home", studies=checkout / "dags" / "studies")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[Running]:
    """A running Airflow as `fedrisk run` starts it."""
    home = tmp_path_factory.mktemp("embedded")
    with airflow_running(
        Settings(home=home, studies=checkout / "dags" / "studies"), "run", print
    ) as found:
        yield found
