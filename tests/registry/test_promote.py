"""From a judged run to a champion that loads elsewhere; a failed gate moves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_run import make_run, settings_at

from tasks.cli import main
from tasks.errors import ExitCode, GateFailed, SettingsError
from tasks.model.artifact import RiskModel
from tasks.model.raw import raw_to_features
from tasks.registry.champion import aliased
from tasks.registry.comparable import differences
from tasks.registry.rollback import rollback
from tasks.run.folder import RunFolder
from tasks.run.plan import Request, make_plan
from tasks.run.step import run_step

NAME = "fedrisk-stroke"
FRESH = """
import json, sys
# As on a machine without fedrisk: no way to its checkout.
sys.path = [p for p in sys.path if p not in ("", sys.argv[2])]
import mlflow, pandas as pd
try:
    import tasks
    sys.exit("fedrisk can be imported; the test proves nothing")
except ImportError:
    pass
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/fedrisk-stroke@champion")
rows = pd.read_json(sys.stdin, orient="records", convert_axes=False)
heavy = sorted({"torch", "flwr"} & set(sys.modules))
print(json.dumps({"rows": model.predict(rows).to_dict("records"), "heavy": heavy}))
"""


def finish(home, name, **how):
    """Make a run, fetch the champion, evaluate and promote."""
    small = make_run(home, name, **how)
    settings = small.context.settings
    (small.run.path / "manifests" / "champion.json").unlink()
    champion = run_step("champion", name, settings)
    if champion.files:
        small.score("champion", RiskModel.load(small.run.path / champion.files["model"]))
    run_step("evaluate", name, settings)
    return small, run_step("promote", name, settings)


def gate_of(manifest):
    """The verdict on the champion."""
    (found,) = (g for g in manifest.figures["gates"] if g["name"] == "not_worse_than_champion")
    return found


def aliases(connected):
    found = {
        a: aliased(connected, NAME, a) for a in ("champion", "challenger", "previous_champion")
    }
    return {alias: int(version.version) for alias, version in found.items() if version}


@pytest.fixture
def patients():
    import pandas as pd

    old = {
        "age": 81, "gender": "Male", "ever_married": "Yes", "Residence_type": "Urban",
        "hypertension": 1, "heart_disease": 1, "work_type": "Self-employed",
        "smoking_status": "smokes", "avg_glucose_level": 220.0, "bmi": 31.0,
    }  # fmt: skip
    return pd.DataFrame([old, old | {"age": 22.5, "hypertension": 0, "bmi": None}])


def test_winners_become_champion_and_the_former_one_is_kept(home, connected, monkeypatch, capsys):
    _, first = finish(home, "first")
    assert first.figures["champion"] is True
    assert (first.figures["model_version"], first.figures["previous"]) == (1, None)
    small, second = finish(home, "second")
    assert small.run.read("champion").figures["version"] == 1
    assert "model" in small.run.read("champion").files
    assert second.figures["previous"] == 1
    verdict = gate_of(second)
    assert (verdict["applicable"], verdict["value"]) == (True, pytest.approx(0, abs=1e-9))
    assert "interval 0.0000 to 0.0000, paired" in verdict["detail"]
    assert aliases(connected) == {"champion": 2, "challenger": 2, "previous_champion": 1}
    monkeypatch.setenv("FEDRISK_HOME", str(home))
    assert main(["model", "rollback", "stroke"]) == 0
    assert "champion: version 1 of fedrisk-stroke, before: version 2" in capsys.readouterr().out
    assert aliases(connected)["champion"] == 1
    assert aliases(connected)["previous_champion"] == 2


def test_a_failed_gate_moves_no_alias_registers_nothing_and_says_by_how_much(home, connected):
    finish(home, "good")
    before = aliases(connected)
    with pytest.raises(
        GateFailed, match=r"mean predicted and the observed risk is .* too high"
    ) as e:
        finish(home, "bad", shift=2.0)
    assert e.value.exit_code == ExitCode.REFUSED == 3
    assert aliases(connected) == before
    assert len(connected.search_model_versions(f"name='{NAME}'")) == 1
    folder = settings_at(home).runs / "bad"
    written = json.loads((folder / "files" / "promote" / "gates.json").read_text())
    assert written["passed"] is False
    assert [g["name"] for g in written["gates"] if not g["passed"]] == ["calibration_error"]
    assert not (folder / "manifests" / "promote.json").exists()
    assert "It is not promoted" in (folder / "files" / "evaluate" / "report.html").read_text()


def test_a_step_run_again_registers_no_second_version(home, connected):
    small, first = finish(home, "again")
    (small.run.path / "manifests" / "promote.json").unlink()
    again = run_step("promote", "again", small.context.settings)
    assert again.figures == first.figures
    assert len(connected.search_model_versions(f"name='{NAME}'")) == 1


def test_without_promotion_the_winner_stays_challenger(home, connected):
    _, manifest = finish(home, "only-challenger", promote=False)
    assert manifest.figures["champion"] is False
    assert aliases(connected) == {"challenger": 1}


def test_a_champion_crowned_meanwhile_is_not_overthrown_unjudged(home, connected):
    small = make_run(home, "slow")
    settings = small.context.settings
    (small.run.path / "manifests" / "champion.json").unlink()
    run_step("champion", "slow", settings)
    finish(home, "quick")
    run_step("evaluate", "slow", settings)
    manifest = run_step("promote", "slow", settings)
    assert manifest.figures["champion"] is False
    assert "became champion while" in manifest.notes[0]
    assert aliases(connected) == {"champion": 1, "challenger": 2}


def test_a_champion_that_is_not_comparable_is_replaced_where_the_study_says_so(home, connected):
    finish(home, "old-key")
    other = ("split.key=other",)
    with pytest.raises(GateFailed, match=r"version 1\) is not comparable: another split\. If"):
        finish(home, "new-key", overrides=other)
    assert RunFolder(settings_at(home).runs, "new-key").read("champion").files == {}
    with pytest.raises(GateFailed, match=r"write gates\.replaces: 1 into the study's file"):
        finish(home, "wrong-version", overrides=(*other, "gates.replaces=2"))
    assert aliases(connected)["champion"] == 1
    _, done = finish(home, "replacing", overrides=(*other, "gates.replaces=1"))
    assert aliases(connected)["champion"] == 2
    assert gate_of(done)["applicable"] is False


def test_real_rows_are_not_held_against_a_synthetic_champion_but_the_other_way_round(
    home, connected, tmp_path
):
    finish(home, "cohort")
    table = tmp_path / "table.csv"
    table.write_text("read by no step of this test")
    small, done = finish(home, "table", source=table)
    assert "learned from synthetic patients, these are real" in gate_of(done)["detail"]
    report = (small.run.folder("evaluate") / "report.html").read_text()
    assert "learned from synthetic patients, these are real" in report
    with pytest.raises(GateFailed, match=r"another kind of source \(deal, here synthetic\)"):
        finish(home, "cohort-again")
    assert aliases(connected)["champion"] == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=9", []),
        ("columns.bmi.title=BMI", []),
        ("split.train=0.5 split.validation=0.3", ["another split"]),
        ("columns.bmi.max_missing=0", ["other columns (bmi)"]),
        ("id=null", ["other columns (id)"]),
    ],
)
def test_what_decides_on_parts_features_and_labels_must_be_the_same(tmp_path, override, expected):
    settings = settings_at(tmp_path)
    plans = [
        make_plan(Request(study="stroke", overrides=given), name, settings)
        for name, given in (("then", []), ("now", override.split()))
    ]
    then = json.loads(plans[0].study.model_dump_json())
    assert differences(then, "synthetic", plans[1]) == expected


def test_nothing_to_roll_back_to_is_said(home, connected):
    with pytest.raises(SettingsError, match="nothing to go back"):
        rollback("stroke", settings_at(home))


def test_the_champion_predicts_in_a_fresh_process_without_fedrisk(
    home, connected, patients, tmp_path, checkout
):
    small, _ = finish(home, "fresh")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, settings_at(home).tracking_uri, str(checkout)],
        input=patients.to_json(orient="records"),
        cwd=tmp_path, capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    model = RiskModel.load(small.run.path / small.run.read("federated").files["model"])
    expected = model.probability(raw_to_features(patients, small.context.study))
    assert np.allclose([row["probability"] for row in found["rows"]], expected, atol=1e-12)
    assert found["rows"][0]["stratum"] == "High"
    assert found["heavy"] == []


def test_a_hospitals_intercept_is_added_where_it_is_named(home, connected, patients):
    import mlflow

    small = make_run(home, "intercepts")
    path = small.run.path / small.run.read("federated").files["model"]
    model = RiskModel.load(path)
    fields = {key: getattr(model, key) for key in RiskModel.__dataclass_fields__}
    shifted = RiskModel(**{**fields, "intercepts": {"hospital-1": 0.7, "hospital-2": -0.4}})
    shifted.save(path)
    run_step("evaluate", "intercepts", small.context.settings)
    run_step("promote", "intercepts", small.context.settings)
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    x = raw_to_features(patients, small.context.study)
    named = patients.assign(hospital=["hospital-1", None])
    found = loaded.predict(named)["probability"].to_numpy()
    assert found[0] == pytest.approx(shifted.probability(x, "hospital-1")[0])
    assert found[1] == pytest.approx(shifted.probability(x)[1])
    with pytest.raises(Exception, match="names no hospital of study stroke in 1 rows"):
        loaded.predict(patients.assign(hospital=["elsewhere", None]))


def test_the_logged_model_is_lean_and_described(home, connected):
    import mlflow

    finish(home, "described")
    place = connected.get_model_version_download_uri(NAME, "1")
    folder = Path(mlflow.artifacts.download_artifacts(place))
    needs = (folder / "requirements.txt").read_text().split()
    assert all("==" in need for need in needs)
    assert not {need.split("==")[0] for need in needs} & {"torch", "pyspark", "flwr", "fedrisk"}
    assert not (folder / "uv.lock").exists()
    model = mlflow.pyfunc.load_model(str(folder))
    outputs = model.metadata.signature.outputs.to_dict()
    assert [(o["name"], o["type"]) for o in outputs] == [
        ("probability", "double"), ("stratum", "string"),
    ]  # fmt: skip
    example = model.input_example
    assert set(example.columns) == {*model.metadata.metadata["columns"]}
    assert model.predict(example)["probability"].between(0, 1).all()
    assert model.metadata.metadata["columns"]["age"]["unit"] == "years"
