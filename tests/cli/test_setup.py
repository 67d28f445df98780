"""``fedrisk setup``: what it prepares, and what it leaves until it is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tasks.cli import setup
from tasks.settings import Settings


@pytest.mark.parametrize("spark", [False, True])
def test_spark_is_prepared_where_it_is_asked_for_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spark: bool,
) -> None:
    made: list[str] = []
    for module in ("lake.setup", "local_airflow.server", "telemetry.tracking"):
        monkeypatch.setattr(f"tasks.{module}.prepare", lambda _, name=module: made.append(name))
    parser = argparse.ArgumentParser()
    setup.add_parser(parser.add_subparsers())
    given = parser.parse_args(["setup", *(["--spark"] if spark else [])])
    assert setup.run(given, Settings(home=tmp_path)) == 0
    assert made == ["telemetry.tracking", "local_airflow.server"] + ["lake.setup"] * spark
    assert ("Spark" in capsys.readouterr().out) == spark
