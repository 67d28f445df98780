"""The registered model answers as its callers ask: tables of any dtype, CSV, JSON, Spark."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tasks.model.artifact import RiskModel
from tasks.model.scaling import Scaler
from tasks.registry.packaging import example, log_model
from tasks.study import read_study

NAME = "fedrisk-served"
STUDY = """
name: served
title: Served
pooling: allowed
target: {column: outcome, positive: ["1"], negative: ["0"]}
columns:
  rate: {type: number, modality: clinical, range: [0.001, 0.04]}
  age: {type: integer, modality: demographics, range: [0, 120], max_missing: 0.5}
  smoker: {type: flag, modality: lifestyle, max_missing: 0.5}
  blood: {type: category, modality: clinical, categories: [A+, A-], max_missing: 0.5}
  grade: {type: category, modality: clinical, categories: ["1", "2"], codes: {high: 2}}
  unit: {type: category, modality: history, categories: ["01", "02"]}
source: {kind: own}
hospitals:
  north: {path: north.csv}
  south: {path: south.csv}
split: {key: served}
"""
ROWS = {
    "rate": [0.02, 0.03, 0.001],
    "age": ["40", "", "81"],
    "smoker": ["yes", "", "0"],
    "blood": ["A+", "A-", ""],
    "grade": ["1", "2", "high"],
    # A reader of CSV takes these for numbers.
    "unit": ["01", "02", "02"],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "served.yaml"
    path.write_text(STUDY)
    return read_study(path)


@pytest.fixture(scope="module")
def logged(home, study, tmp_path_factory):
    """The folder of a champion of that study, as the registry hands it out, and its model."""
    import mlflow
    from small_run import settings_at

    from tasks.telemetry.tracking import client

    connected = client(settings_at(home))
    mlflow.set_tracking_uri(settings_at(home).tracking_uri)
    width = len(study.features)
    model = RiskModel(
        kind="logistic",
        study=study.name,
        features=tuple(f.name for f in study.features),
        model=study.model,
        scaler=Scaler(np.zeros(width), np.ones(width)),
        flat=np.linspace(-0.5, 0.5, width + 1, dtype=np.float32),
        threshold=0.5,
        intercepts={"north": 0.3, "south": -0.3},
    )
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model.save(path)
    place = tmp_path_factory.mktemp("artifacts").as_uri()
    experiment = connected.create_experiment("served", artifact_location=place)
    run = connected.create_run(experiment).info.run_id
    uri = log_model(connected, run, "r", study, path)
    connected.create_registered_model(NAME)
    version = connected.create_model_version(NAME, uri, run)
    connected.set_registered_model_alias(NAME, "champion", version.version)
    return mlflow.artifacts.download_artifacts(f"models:/{NAME}@champion")


@pytest.fixture(scope="module")
def champion(logged):
    import mlflow

    return mlflow.pyfunc.load_model(logged)


@pytest.fixture(scope="module")
def expected(champion):
    """What the model says of the rows as a table of texts gives them."""
    import pandas as pd

    return champion.predict(pd.DataFrame(ROWS))["probability"].to_numpy()


def frames():
    import pandas as pd

    rows = pd.DataFrame(ROWS)
    ages, flags = [40, None, 81], [True, None, False]
    return {
        "texts": rows,
        "floats with NaN": rows.assign(age=[40.0, np.nan, 81.0], smoker=[1.0, np.nan, 0.0]),
        "nullable integers": rows.assign(age=pd.array(ages, "Int64")),
        "true, false and None": rows.assign(smoker=flags),
        "nullable flags": rows.assign(smoker=pd.array(flags, "boolean")),
        "numbers as codes": rows.assign(grade=[1, 2, 2]),
        "pandas categories": rows.assign(
            blood=pd.Categorical(["A+", "A-", None]), grade=pd.Categorical([1, 2, 2])
        ),
        "Arrow's types": rows.assign(age=pd.array(ages, "Int64")).convert_dtypes(
            dtype_backend="pyarrow"
        ),
        "no hospital at all": rows.assign(hospital=[None] * 3),
        "hospital read as NaN": rows.assign(hospital=[np.nan] * 3),
        "hospital as a category": rows.assign(hospital=pd.Categorical([None] * 3, ["north"])),
        "without what may be missing": rows.drop(columns="blood"),
        "further columns": rows.assign(ward="7", outcome=1),
    }


@pytest.mark.parametrize("kind", frames())
def test_a_table_of_any_dtype_is_scored(champion, expected, kind):
    frame = frames()[kind]
    if kind == "without what may be missing":
        champion.predict(frame)
        return
    found = champion.predict(frame)["probability"].to_numpy()
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_hospital_of_pandas_categories_gets_its_intercept(champion, expected):
    import pandas as pd

    named = pd.DataFrame(ROWS).assign(hospital=pd.Categorical(["north", "south", None]))
    found = champion.predict(named)["probability"].to_numpy()
    assert found[0] > expected[0]
    assert found[1] < expected[1]
    assert found[2] == expected[2]


def test_the_example_is_within_narrow_ranges(champion, study):
    assert champion.predict(example(study))["probability"].between(0, 1).all()


def test_it_is_served_as_csv_and_json(champion, expected):
    import pandas as pd
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    rows = pd.DataFrame(ROWS)
    with TestClient(init(champion)) as client:
        asked = {
            "text/csv": rows.to_csv(index=False),
            "application/json": json.dumps({"dataframe_split": rows.to_dict("split")}),
            "application/json; charset=utf-8": json.dumps(
                {"dataframe_records": rows.assign(hospital=None).to_dict("records")}
            ),
            "application/json;charset=utf-8": json.dumps({"inputs": rows.to_dict("list")}),
        }
        for kind, body in asked.items():
            answer = client.post("/invocations", content=body, headers={"Content-Type": kind})
            assert answer.status_code == 200, answer.text
            found = [row["probability"] for row in answer.json()["predictions"]]
            assert found == pytest.approx(expected, abs=1e-9)
        wrong = rows.assign(age="old").to_csv(index=False)
        answer = client.post("/invocations", content=wrong, headers={"Content-Type": "text/csv"})
        assert answer.status_code == 400
        assert "column age is not a whole number in 3 rows" in answer.text


@pytest.mark.slow
def test_spark_calls_it_with_and_without_names(logged, expected, tmp_path, monkeypatch):
    import mlflow
    import pandas as pd
    from pyspark.sql.functions import col, struct

    from tasks.lake.session import spark_session
    from tasks.settings import Settings

    spark = spark_session(Settings(home=tmp_path))
    # Another test may have started it.
    monkeypatch.setattr(spark.sparkContext, "pythonExec", sys.executable)
    rows = spark.createDataFrame(pd.DataFrame(ROWS))
    score = mlflow.pyfunc.spark_udf(spark, logged, result_type="double", env_manager="local")
    named = struct(*[col(name) for name in reversed(rows.columns)])
    for asked in (score(named), score(*[col(name) for name in ROWS])):
        found = [row[0] for row in rows.select(asked).collect()]
        assert found == pytest.approx(expected, abs=1e-9)


CALLER = """
import sys, mlflow, pandas as pd, json
sys.path.insert(0, sys.argv[1])
import tasks
assert tasks.WHOSE == "the caller's"
rows = pd.DataFrame(json.loads(sys.argv[2]))
models = [mlflow.pyfunc.load_model(folder) for folder in sys.argv[3:]]
print(json.dumps([m.predict(rows)["probability"].tolist() for m in [*models, models[0]]]))
import tasks
assert tasks.WHOSE == "the caller's"
"""


def test_it_leaves_the_callers_modules_alone_and_two_versions_work_side_by_side(
    logged, expected, tmp_path
):
    import shutil
    from pathlib import Path

    (tmp_path / "tasks.py").write_text('WHOSE = "the caller\'s"\n')
    # Another version's code: its package has another name and another way to score.
    other = tmp_path / "other"
    shutil.copytree(logged, other)
    [package] = (other / "code").glob("fedrisk_model_*")
    renamed = package.rename(package.with_name("fedrisk_model_another"))
    for path in [other / "pyfunc_model.py", *other.rglob("*.py")]:
        if path.exists():
            text = path.read_text().replace(package.name, renamed.name)
            path.write_text(text.replace("1 / (1 + np.exp(-logit))", "0 * logit + 0.25"))
    done = subprocess.run(
        [sys.executable, "-c", CALLER, str(tmp_path), json.dumps(ROWS), str(logged), str(other)],
        capture_output=True, text=True, cwd=Path(tmp_path), timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second, again = json.loads(done.stdout.strip().splitlines()[-1])
    assert first == again == pytest.approx(expected, abs=1e-9)
    assert second == [0.25] * 3
