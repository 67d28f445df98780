"""The three data steps of one large hospital and a federated round over its rows.

Beside them the same steps on Spark, and a plain pandas pass that writes the same four tables from
the same rules, and neither quarantines with reasons nor judges the table as a whole.
``BENCH_ROWS`` sets the rows (500,000 by default).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from bench.figures import Usage, fedrisk, figure, measure

NUMBERS = [f"x{i}" for i in range(8)]
STUDY = """
name: large
title: One large hospital
pooling: forbidden
id: id
target: {{column: outcome, positive: ["1"], negative: ["0"]}}
columns:
{columns}
  sex: {{type: category, modality: demographics, categories: [Female, Male]}}
  smoker: {{type: flag, modality: lifestyle, max_missing: 0.5}}
  ward: {{type: category, modality: history, categories: [a, b, c, d]}}
source: {{kind: own, format: csv}}
hospitals:
  north: {{path: north.csv}}
  south: {{path: south.csv}}
split: {{key: large}}
federation: {{min_hospitals: 2, rounds: 1, local_epochs: 1, batch_size: 4096}}
"""
SMALL = 5_000
"""Rows of the other hospital."""
PANDAS = """
import sys
import pandas as pd
from deltalake import write_deltalake
source, folder = sys.argv[1:]
raw = pd.read_csv(source, dtype=str, keep_default_na=False, na_values=[""])
write_deltalake(f"{folder}/bronze", raw)
text = raw.apply(lambda column: column.str.strip().str.replace(r"^([+-]?[0-9]+)[.]0*$", r"\\1",
                                                               regex=True))
numbers = [name for name in raw if name.startswith("x")]
values = {name: pd.to_numeric(text[name], errors="coerce") for name in numbers}
good = ~text["id"].duplicated() & text["id"].notna() & text["outcome"].isin(["0", "1"])
for name in numbers:
    good &= text[name].isna() | values[name].between(0, 100)
good &= text["sex"].isin(["Female", "Male"]) & text["ward"].isin(list("abcd"))
good &= text["smoker"].isna() | text["smoker"].isin(["0", "1"])
write_deltalake(f"{folder}/quarantine", raw[~good])
silver = pd.DataFrame({"patient": text["id"], **values, "sex": text["sex"],
                       "smoker": pd.to_numeric(text["smoker"]), "ward": text["ward"],
                       "label": text["outcome"].astype("int32")})[good]
write_deltalake(f"{folder}/silver", silver)
gold = silver.drop(columns=["sex", "ward"])
for name, kinds in (("sex", ["Female", "Male"]), ("ward", list("abcd"))):
    for kind in kinds:
        gold[f"{name}_{kind}"] = (silver[name] == kind).astype(float)
write_deltalake(f"{folder}/gold", gold)
"""


def write_table(path: Path, rows: int) -> None:
    """A table of 13 columns, a hundredth of its numbers missing and a thousandth out of range."""
    draw = np.random.default_rng(1)
    with path.open("wb") as file:
        file.write((",".join(["id", *NUMBERS, "sex", "smoker", "ward", "outcome"]) + "\n").encode())
        for start in range(0, rows, 100_000):
            count = min(100_000, rows - start)
            columns = {"id": pa.array([f"p{start + i}" for i in range(count)])}
            for name in NUMBERS:
                values = draw.uniform(0, 100.05, count).round(3)
                columns[name] = pa.array(values, mask=draw.random(count) < 0.01)
            columns["sex"] = pa.array(np.array(["Female", "Male"])[draw.integers(0, 2, count)])
            columns["smoker"] = pa.array(draw.integers(0, 2, count))
            columns["ward"] = pa.array(np.array(list("abcd"))[draw.integers(0, 4, count)])
            columns["outcome"] = pa.array(draw.integers(0, 2, count))
            options = csv.WriteOptions(include_header=False, quoting_style="none")
            csv.write_csv(pa.table(columns), file, options)


class Bench:
    """The steps of one run with one engine."""

    def __init__(self, folder: Path, engine: str, rows: int) -> None:
        self.engine, self.rows = engine, rows
        self.environment = {
            **os.environ,
            "FEDRISK_HOME": str(folder / engine),
            "FEDRISK_STUDIES": str(folder),
            "FEDRISK_ENGINE": engine,
            "FEDRISK_ENGINE_MEMORY": "4g" if engine == "spark" else "1g",
        }
        self.log = folder / f"{engine}.log"
        self.step("plan")

    def step(self, name: str, hospital: str | None = None) -> Usage:
        """Run a step and print what it took; the small hospital's is not counted."""
        of = ("--hospital", hospital) if hospital else ()
        command = fedrisk("step", name, "--study", "large", "--run", "bench", *of)
        used = measure(command, self.environment, self.log, deadline=3600, sample=True)
        if used.code != 0:
            raise SystemExit(f"step {name} ended with {used.code}:\n{self.log.read_text()[-3000:]}")
        if name != "plan" and hospital != "south":
            _print(f"{self.engine}_{name}_{self.rows}", used)
        return used

    def data(self, hospital: str) -> Usage:
        """The three data steps in all."""
        used = [self.step(name, hospital) for name in ("collect", "validate", "features")]
        return Usage(
            wall=sum(u.wall for u in used),
            cpu=sum(u.cpu for u in used),
            peak_mib=max(u.peak_mib for u in used),
            code=0,
            output="",
        )


def main() -> None:
    """Measure, and print the ratios."""
    rows = int(os.environ.get("BENCH_ROWS", "500000"))
    with tempfile.TemporaryDirectory(prefix="fedrisk-bench-") as name:
        folder = Path(name)
        number = "  {}: {{type: number, modality: clinical, range: [0, 100], max_missing: 0.5}}"
        columns = "\n".join(number.format(each) for each in NUMBERS)
        (folder / "large.yaml").write_text(STUDY.format(columns=columns))
        write_table(folder / "north.csv", rows)
        write_table(folder / "south.csv", SMALL)
        bench = Bench(folder, "local", rows)
        local = bench.data("north")
        bench.data("south")
        bench.step("federated")
        plain = measure(
            [sys.executable, "-c", PANDAS, str(folder / "north.csv"), str(folder)],
            os.environ,
            folder / "pandas.log",
            sample=True,
        )
        if plain.code != 0:
            raise SystemExit((folder / "pandas.log").read_text()[-3000:])
        _print("local", local)
        _print("pandas", plain)
        figure("data_local_cpu_ratio", local.cpu / plain.cpu, "ratio", "one pandas pass")
        if "--no-spark" not in sys.argv:
            spark = Bench(folder, "spark", rows).data("north")
            _print("spark", spark)
            figure("data_local_cpu_ratio", local.cpu / spark.cpu, "ratio", "Spark")


def _print(name: str, used: Usage) -> None:
    figure(f"data_{name}_wall", used.wall, "s")
    figure(f"data_{name}_cpu", used.cpu, "s")
    figure(f"data_{name}_peak", used.peak_mib, "MiB")


if __name__ == "__main__":
    main()
