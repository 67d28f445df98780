"""Bronze is the source as received, whatever the source's kind."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from deltalake import DeltaTable, write_deltalake

from tasks.run.manifest import Manifest
from tests.data.conftest import HEADER, House, by_patient, patients, read, text_of


def test_bronze_holds_every_value_as_text_with_its_place(house: House) -> None:
    rows = patients()
    rows[0][1], rows[1][2] = " 67.50 ", '"Fe""male, née\nX"'
    house.north(text_of(rows))
    bronze = sorted(read(house.steps("r", "collect").tables["bronze"]), key=lambda row: row["_row"])
    assert [row["_row"] for row in bronze] == list(range(1, 81))
    assert bronze[0]["age"] == " 67.50 "
    assert bronze[1]["sex"] == 'Fe"male, née\nX'
    assert [row["id"] for row in bronze] == [row[0] for row in rows]


def test_a_table_in_latin_1_is_read_where_the_study_says_so(house: House) -> None:
    house.study(source=", encoding: iso-8859-1, delimiter: ';'")
    rows = patients()
    rows[0][2] = "Mâle"
    house.north(text_of(rows, delimiter=";").encode("iso-8859-1"))
    bronze = read(house.steps("r", "collect").tables["bronze"])
    assert "Mâle" in {row["sex"] for row in bronze}


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_parquet_and_delta_reach_the_same_silver_as_csv(
    house: House, sound: dict[str, Manifest], kind: str
) -> None:
    columns = dict(zip(HEADER, zip(*patients(), strict=True), strict=True))
    table = pa.table(
        {
            "id": list(columns["id"]),
            "age": [float(text) for text in columns["age"]],
            "sex": list(columns["sex"]),
            "smoker": [text == "1" for text in columns["smoker"]],
            "bmi": [None if text == "N/A" else float(text) for text in columns["bmi"]],
            "visits": [int(text) for text in columns["visits"]],
            "stroke": [int(text) for text in columns["stroke"]],
        }
    )
    house.study(kind=kind)
    if kind == "parquet":
        parquet.write_table(table, house.folder / "north.parquet")
    else:
        write_deltalake(house.folder / "north.delta", table)
    silver = house.steps(kind, "collect", "validate").tables["silver"]
    assert by_patient(silver) == by_patient(sound["validate"].tables["silver"])


def test_a_step_that_runs_again_leaves_the_same_rows_once(house: House) -> None:
    steps = ("collect", "validate", "features")
    first = by_patient(house.steps("r", *steps).tables["gold"])
    shutil.rmtree(house.settings.runs / "r" / "manifests")
    assert first == by_patient(house.steps("r", *steps).tables["gold"])
    assert (
        len(DeltaTable(str(house.settings.home / "lake/north/small/gold")).to_pyarrow_table()) == 80
    )


KILLED = {
    "before the commit": """
import tasks.data.collect as step
read = step.csv_rows
def killed_at_the_end(*arguments):
    rows = read(*arguments)
    def batches():
        yield from rows
        os.kill(os.getpid(), signal.SIGKILL)
    return pyarrow.RecordBatchReader.from_batches(rows.schema, batches())
step.csv_rows = killed_at_the_end
""",
    "before the manifest has its name": """
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
""",
}
"""Where a process ends itself: no signal from outside falls on so small a moment."""
RUN = """
import os, pathlib, signal, sys
import pyarrow
from tasks.run.step import run_step
from tasks.settings import Settings
{killed}
run_step("collect", "killed", Settings(home=pathlib.Path(sys.argv[1])), "north")
"""


@pytest.mark.parametrize("killed", KILLED)
def test_a_step_that_is_killed_leaves_no_manifest_and_a_whole_version(
    house: House, killed: str
) -> None:
    before = house.steps("good", "collect").tables["bronze"]
    house.north(text_of(patients(200, seed=9)))
    house.plan("killed")
    program = RUN.format(killed=KILLED[killed])
    ended = subprocess.run(
        [sys.executable, "-c", program, str(house.settings.home)],
        capture_output=True,
        timeout=1500,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not list((house.settings.runs / "killed/manifests").glob("collect.*"))
    lake = house.settings.home / "lake/north/small/bronze"
    version, rows = (
        (before.version, 80) if killed == "before the commit" else (before.version + 1, 200)
    )
    assert DeltaTable(str(lake)).version() == version
    assert len(DeltaTable(str(lake)).to_pyarrow_table()) == rows
    done = house.steps("killed", "collect")
    assert done.figures["rows"] == len(DeltaTable(str(lake)).to_pyarrow_table()) == 200
