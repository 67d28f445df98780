"""The main job as a user runs it: one command from raw tables to a champion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from whole_runs import WholeRun

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end, pytest.mark.timeout(3000)]

SUMMARY = {"auroc", "auroc_ci", "auprc", "brier", "auroc_within", "per_hospital"}
KEYS = {
    *("run", "study", "source", "hospitals", "central", "local", "federated", "reference"),
    *("rounds", "rounds_to_99", "bytes_up", "bytes_down", "seconds", "gates", "model_version"),
    *("champion", "report"),
}


def test_the_default_run_ends_with_a_champion(default_run: WholeRun) -> None:
    assert default_run.result["champion"] is True
    assert all(gate["passed"] for gate in default_run.result["gates"])


def test_the_json_line_has_every_key(default_run: WholeRun) -> None:
    assert set(default_run.result) >= KEYS
    for key in ("central", "federated", "reference"):
        assert set(default_run.result[key]) >= SUMMARY, key
    for summary in default_run.result["local"].values():
        assert set(summary) >= SUMMARY
    assert default_run.result["bytes_up"] > 0
    assert default_run.result["bytes_down"] > 0


def test_the_synthetic_hospitals_have_their_exact_sizes_and_counts(default_run: WholeRun) -> None:
    sizes = {h["name"]: (h["rows"], h["positives"]) for h in default_run.result["hospitals"]}
    assert sizes == {"hospital-1": (1700, 204), "hospital-2": (1400, 28), "hospital-3": (2010, 100)}


def test_progress_shows_steps_and_rounds(default_run: WholeRun) -> None:
    commands = (default_run.interrupted, default_run.finished)
    text = "".join(each.output + each.errors for each in commands)
    for step in ("collect", "validate", "features", "central", "federated", "promote"):
        assert step in text
    assert "round" in text
    assert "AUROC" in text


def test_the_report_and_the_card_are_there(default_run: WholeRun) -> None:
    report = Path(default_run.result["report"])
    assert report.stat().st_size > 20_000
    assert "<svg" in report.read_text(encoding="utf-8")


def test_the_champion_loads_and_predicts_in_a_fresh_process(
    default_run: WholeRun, tmp_path: Path
) -> None:
    code = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_registry_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/fedrisk-stroke@champion")
example = model.input_example if getattr(model, "input_example", None) is not None else None
rows = pd.DataFrame([
    {"age": 81.0, "gender": "Male", "ever_married": "Yes", "Residence_type": "Urban",
     "hypertension": 1, "heart_disease": 1, "work_type": "Self-employed",
     "smoking_status": "smokes", "avg_glucose_level": 220.0, "bmi": 31.0},
    {"age": 22.0, "gender": "Female", "ever_married": "No", "Residence_type": "Rural",
     "hypertension": 0, "heart_disease": 0, "work_type": "Private",
     "smoking_status": "never smoked", "avg_glucose_level": 85.0, "bmi": 22.0},
])
out = model.predict(rows)
print(out.to_json(orient="records"))
"""
    uri = f"sqlite:///{default_run.home / 'mlflow' / 'mlflow.db'}"
    done = subprocess.run(
        [sys.executable, "-c", code, uri],
        cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    old, young = json.loads(done.stdout.strip().splitlines()[-1])
    assert 0 <= young["probability"] < old["probability"] <= 1
    assert old["stratum"] == "High"
    assert young["stratum"] == "Low"


def test_an_unknown_override_is_refused_with_exit_code_2(default_run: WholeRun) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tasks.cli", "run", "--set", "federation.rouds=3"],
        env={**os.environ, "FEDRISK_HOME": str(default_run.home)},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "federation.rouds" in done.stderr


def test_a_run_of_a_table_that_is_not_the_studys_does_not_begin(
    default_run: WholeRun, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text("id,age\n1,2\n")
    done = subprocess.run(
        [sys.executable, "-m", "tasks.cli", "run", "--source", str(tmp_path / "table.csv"),
         "--run", "refused"],
        env={**os.environ, "FEDRISK_HOME": str(default_run.home)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout[-2000:] + done.stderr[-2000:]
    assert "no run was started" in done.stderr
    assert "table.csv: lacks columns gender" in done.stderr
    assert not (default_run.home / "runs" / "refused").exists()
