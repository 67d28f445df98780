"""A small study and steps run in this process, so that all tests share one Spark session."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from tasks.run.manifest import Manifest, TableVersion
from tasks.run.plan import Request, make_plan
from tasks.run.step import run_step
from tasks.settings import Settings

HEADER = ["id", "age", "sex", "smoker", "bmi", "visits", "stroke"]
STUDY = """
name: small
title: A small study
pooling: allowed
id: id
target: {{column: stroke, positive: ["1"], negative: ["0"]}}
columns:
  age: {{type: number, modality: demographics, range: [0, 120]}}
  sex: {{type: category, modality: demographics, categories: [Female, Male]}}
  smoker: {{type: flag, modality: lifestyle}}
  bmi: {{type: number, modality: clinical, range: [8, 120], missing: [N/A], max_missing: 0.3,
    optional_at: [south]}}
  visits: {{type: integer, modality: history, range: [0, 50]}}
source: {{kind: own, format: {format}{source}}}
hospitals:
  north: {{path: north.{ending}}}
  south: {{path: south.{ending}}}
split: {{key: small}}
federation: {{min_hospitals: 2}}
"""

Rows = list[list[str]]


def patients(count: int = 80, seed: int = 7) -> Rows:
    """Rows of made-up patients, every fifth of them positive."""
    draw = random.Random(seed)
    return [
        [
            f"p{seed}-{i}",
            str(draw.randint(20, 90)),
            draw.choice(["Female", "Male"]),
            str(draw.randint(0, 1)),
            "N/A" if i % 10 == 3 else f"{draw.uniform(18, 40):.1f}",
            str(draw.randint(0, 9)),
            "1" if i % 5 == 0 else "0",
        ]
        for i in range(count)
    ]


def text_of(rows: Rows, header: list[str] | None = None, delimiter: str = ",") -> str:
    """The rows as a CSV."""
    lines = [HEADER if header is None else header, *rows]
    return "".join(delimiter.join(line) + "\n" for line in lines)


class House:
    """A home folder with a study, whose steps run in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(home=folder / "home", studies=folder)

    def study(
        self, *, kind: str = "csv", source: str = "", change: tuple[str, str] = ("", "")
    ) -> None:
        """Write the study's file."""
        ending = {"csv": "csv", "parquet": "parquet", "delta": "delta"}[kind]
        text = STUDY.format(format=kind, source=source, ending=ending)
        assert change[0] in text
        (self.folder / "small.yaml").write_text(text.replace(*change, 1) if change[0] else text)

    def north(self, content: str | bytes) -> None:
        """Write the table of hospital north."""
        data = content.encode() if isinstance(content, str) else content
        (self.folder / "north.csv").write_bytes(data)

    def plan(self, run: str, **request: Any) -> None:
        """Make the plan of a run."""
        make_plan(Request(**{"study": "small", **request}), run, self.settings)

    def steps(self, run: str, *names: str, hospital: str | None = "north") -> Manifest:
        """Run steps and return the last one's manifest."""
        if not (self.settings.runs / run / "plan.json").exists():
            self.plan(run)
        done = [run_step(name, run, self.settings, hospital) for name in names]
        return done[-1]


def read(table: TableVersion) -> list[dict[str, Any]]:
    """Rows of one version of a Delta table, by the package that the models read it with."""
    return DeltaTable(table.uri, version=table.version).to_pyarrow_table().to_pylist()


def by_patient(table: TableVersion) -> list[dict[str, Any]]:
    """Rows of one version of a Delta table, in the order of the patients."""
    return sorted(read(table), key=lambda row: str(row["patient"]))


def sound_house(folder: Path) -> House:
    """A home with the small study and two sound tables."""
    made = House(folder)
    made.study()
    made.north(text_of(patients()))
    (folder / "south.csv").write_text(text_of(patients(40, seed=8)))
    return made


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A home with the small study and two sound tables."""
    return sound_house(tmp_path)


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    """What each of the three steps leaves of a sound table, only to be read."""
    made = sound_house(tmp_path_factory.mktemp("sound"))
    return {step: made.steps("r", step) for step in ("collect", "validate", "features")}


@pytest.fixture
def rows_of() -> Callable[[Path], Rows]:
    """Read a CSV's rows, header first."""

    def read_rows(path: Path) -> Rows:
        with path.open(newline="") as file:
            return list(csv.reader(file))

    return read_rows
