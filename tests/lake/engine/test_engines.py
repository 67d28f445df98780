"""Both engines give the same tables, and each reads and replaces what the other wrote."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from tasks.data.rules import silver_definition
from tasks.errors import DataError, SettingsError
from tasks.lake.engine.choose import engine_for
from tasks.lake.engine.local import LocalEngine, duckdb_sql
from tasks.lake.tables import commits
from tasks.run.manifest import Manifest, TableVersion
from tasks.run.plan import Request, make_plan
from tasks.run.step import run_step
from tasks.settings import Settings
from tasks.study import read_study

STEPS = ("collect", "validate", "features")
STUDY = r"""
name: odd
title: A study of odd values
pooling: allowed
{id}target: {{column: "Out (1, 2)", positive: ["1", "yes"], negative: ["0", "no"]}}
columns:
  Age: {{type: number, modality: demographics, range: [0, 120]}}
  rate: {{type: number, modality: clinical, range: [0.1, 1.0e5], missing: [N/A, "-9"],
    max_missing: 0.9}}
  sex: {{type: category, modality: demographics, categories: ["Fe'male", 'M\ale', "1", "<65; #2"]}}
  flag: {{type: flag, modality: lifestyle, max_missing: 0.9}}
  visits: {{type: integer, modality: history, range: [-3, 50], max_missing: 0.9}}
source: {{kind: own, format: csv}}
hospitals:
  north: {{path: north.csv}}
  south: {{path: south.csv}}
split: {{key: "o'dd"}}
federation: {{min_hospitals: 2}}
"""
ODD = ["N/A", "-9", "-9.0", "0", "-0", "1", "1.0", "01", "+1.", "1e0", ".5", "5.", "1e400", "0.1"]
ODD += [
    "-1e400",
    "1e-400",
    "NaN",
    "inf",
    "1_000",
    "0x1A",
    "٣",
    "１",
    "1d",
    "2.5",
    "-2.5",
    "1,5",
    "--",
]
ODD += ["9999999999", "99999999999999999999", "119.99999999999999", "é", "e\u0301", "x" * 300, "#"]
ODD += [
    "",
    " ",
    "12 ",
    " 12",
    "\t7",
    "7\n",
    "\u00a0",
    "\ufeff3\u2028",
    "'",
    "\\",
    '"',
    "true",
    "null",
]


def odd_table(rows: int, seed: int) -> str:
    """A CSV whose rows are sound but for a tenth of the values."""
    draw = random.Random(seed)
    lines = ['Patient ID,Age,rate,sex,flag,visits,"Out (1, 2)",note']
    for place in range(rows):
        sound = [
            f"p{place if draw.random() > 0.02 else place // 2}",
            f"{draw.uniform(0, 120):.{draw.randint(0, 17)}f}",
            draw.choice(["N/A", "-9", f"{draw.uniform(0.1, 1e5):.6g}", "0.1", "100000"]),
            draw.choice(["Fe'male", "M\\ale", "1", " 1.0", "<65; #2"]),
            draw.choice(["0", "1", "1.0", ""]),
            draw.choice(["", str(draw.randint(-3, 50)), f"{draw.randint(0, 50)}.0"]),
            draw.choice(["1", "0", "no", "0.0", "no"]),
            draw.choice(ODD),
        ]
        found = [draw.choice(ODD) if draw.random() < 0.02 else value for value in sound]
        lines.append(",".join('"' + value.replace('"', '""') + '"' for value in found))
    return "\n".join([*lines, ""])


def steps(folder: Path, lake: str, run: str, engine: str) -> dict[str, Manifest]:
    """The data steps of hospital north."""
    settings = Settings.from_environment(
        {
            "FEDRISK_HOME": str(folder / engine),
            "FEDRISK_STUDIES": str(folder),
            "FEDRISK_LAKE": lake,
            "FEDRISK_ENGINE": engine,
        }
    )
    make_plan(Request(study="odd"), run, settings)
    return {step: run_step(step, run, settings, "north") for step in STEPS}


def rows_of(table: TableVersion) -> list[dict[str, Any]]:
    found = DeltaTable(table.uri, version=table.version).to_pyarrow_table().to_pylist()
    return sorted(found, key=repr)


def described(table: TableVersion) -> dict[str, Any]:
    """What a table says of itself, but for what tells of a single commit."""
    delta = DeltaTable(table.uri, version=table.version)
    commit = next(commits(table.uri, ""))
    about = {key: value for key, value in commit.about.items() if key not in ("token", "run")}
    settings = delta.metadata().configuration
    return {
        "schema": json.loads(delta.schema().to_json()),
        "constraints": {k: v for k, v in settings.items() if "constraints" in k},
        "about": about,
        "rows": commit.rows,
    }


def without_former(manifest: Manifest) -> dict[str, Any]:
    """The figures, but for the comparison with a version before."""
    former = ("target_rate_before", "expectations")
    return {name: value for name, value in manifest.figures.items() if name not in former}


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False], ids=["id", "no-id"])
def test_both_engines_leave_the_same_tables_and_take_over_each_others(
    tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With ids also what is judged on counts.
    monkeypatch.setattr("tasks.data.validate.ABOVE", 10_000 if named else 30_000)
    (tmp_path / "odd.yaml").write_text(STUDY.format(id="id: Patient ID\n" if named else ""))
    (tmp_path / "north.csv").write_text(odd_table(20_000, 7))
    made: dict[tuple[str, str], dict[str, Manifest]] = {}
    for lake, engines in (("a", ("spark", "local")), ("b", ("local", "spark"))):
        for run, engine in enumerate(engines):
            place = str(tmp_path / lake / "{hospital}")
            made[lake, engine] = steps(tmp_path, place, f"r{run}-{lake}", engine)
    expected = made["a", "local"]
    for done in made.values():
        for step in STEPS:
            assert without_former(done[step]) == without_former(expected[step])
            for layer, table in done[step].tables.items():
                assert rows_of(table) == rows_of(expected[step].tables[layer]), layer
    assert expected["validate"].figures["quarantined"] > 1000
    assert expected["validate"].figures["rows"] > 10_000
    for step in STEPS:
        for layer, table in made["a", "local"][step].tables.items():
            assert described(table) == described(made["b", "spark"][step].tables[layer]), layer


@pytest.mark.parametrize("name", ["local", pytest.param("spark", marks=pytest.mark.slow)])
def test_no_engine_writes_what_the_study_forbids(tmp_path: Path, name: str) -> None:
    text = STUDY.format(id="id: Patient ID\n").replace("\\", "")
    (tmp_path / "odd.yaml").write_text(text)
    study = read_study(tmp_path / "odd.yaml")
    definition = silver_definition(study)
    uri, about = str(tmp_path / "silver"), {"definition": definition.digest}
    sound = {
        "patient": "'p'", "Age": "1.5D", "rate": "NULL", "sex": "'Fe\\'male'", "flag": "1",
        "visits": "2", "label": "0",
    }  # fmt: skip
    kinds = {"string": "string", "double": "double", "integer": "int"}

    def row(**other: str) -> str:
        values = {**sound, **other}
        return "SELECT " + ", ".join(
            f"CAST({values[c]} AS {kinds[kind]}) AS `{c}`"
            for c, (kind, _) in definition.columns.items()
        )

    settings = Settings.from_environment({"FEDRISK_HOME": str(tmp_path), "FEDRISK_ENGINE": name})
    with engine_for(settings, study, "hospital north", 1) as engine:
        written = engine.write(row(), uri, about, definition)
        for column, value in [
            ("Age", "1301.25D"), ("Age", "NULL"), ("sex", "'Other'"), ("label", "2"),
            ("patient", "''"),
            ("flag", "2"), ("visits", "-4"), ("rate", "0.09D"), ("label", "NULL"),
        ]:  # fmt: skip
            with pytest.raises(DataError, match="constraint of the table") as caught:
                engine.write(
                    row(**{column: value}), uri, {"definition": definition.digest}, definition
                )
            assert "1301.25" not in str(caught.value)
        assert len(rows_of(written)) == 1
        assert next(commits(uri, "")).version == written.version
        again = engine.write(row(Age="120D"), uri, about, definition)
        assert again.version == written.version + 1
        assert engine.read("silver", written) == list(definition.columns)
        assert engine.rows("SELECT count(*) AS n FROM silver") == [{"n": 1}]
        with pytest.raises(DataError, match="could not read or write"):
            engine.read("silver", written.model_copy(update={"version": 99}))


def test_the_engine_follows_setting_study_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = "compute: {spark_above_rows: 1000}\n"
    (tmp_path / "odd.yaml").write_text(STUDY.format(id="") + compute)
    study = read_study(tmp_path / "odd.yaml")
    with engine_for(Settings(home=tmp_path), study, "hospital north", 1000) as engine:
        assert isinstance(engine, LocalEngine)
    with engine_for(Settings(home=tmp_path, engine="local"), study, "h", 10**9) as engine:
        assert isinstance(engine, LocalEngine)
    monkeypatch.setattr("tasks.lake.engine.choose.find_spec", lambda name: None)
    for settings in (Settings(home=tmp_path), Settings(home=tmp_path, engine="spark")):
        with pytest.raises(SettingsError, match="1001 rows need the engine spark"):
            engine_for(settings, study, "hospital north", 1001)


def test_an_engine_leaves_nothing_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with LocalEngine("h", "1g") as engine, engine.keep("a", "SELECT 1 AS x"):
        assert engine.rows("SELECT x FROM a") == [{"x": 1}]
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_an_error_of_duckdb_is_told_without_the_value() -> None:
    with (
        LocalEngine("hospital north", "1g") as engine,
        pytest.raises(DataError, match="hospital north: DuckDB ended a query") as caught,
    ):
        engine.rows("SELECT cast(x AS int) + 1 AS y FROM (SELECT error('Zebra7781') AS x)")
    assert "Zebra" not in str(caught.value)


def test_what_the_dialects_name_alike_is_alike() -> None:
    with LocalEngine("h", "1g") as engine:
        engine.view("nothing", "SELECT cast(NULL AS int) AS x")
        counts = "SELECT count_if(x = 1) AS one, count_if(x IS NULL) AS none FROM nothing"
        assert engine.rows(counts) == [{"one": 0, "none": 1}]
        assert engine.rows("SELECT conv(substr('ffff0', 1, 4), 16, 10) AS x") == [{"x": 65535}]
    assert "CONV" not in duckdb_sql("SELECT cast(conv(x, 16, 10) AS double) FROM t").upper()
