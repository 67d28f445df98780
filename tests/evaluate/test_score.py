from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from gold_run import at, gold_run

from tasks.errors import DataError
from tasks.evaluate.baselines import gold_rows
from tasks.evaluate.score import score
from tasks.model.artifact import RiskModel
from tasks.model.metrics import auroc
from tasks.model.scores import Scores
from tasks.run.manifest import Manifest
from tasks.run.step import Context, run_step


def trained(home: Path, overrides: tuple[str, ...] = ()) -> Context:
    """A run up to score, with the central model in the federated one's place, and intercepts."""
    context = gold_run(home, overrides=overrides)
    run_step("reference", context.run.run, context.settings)
    found = run_step("central", context.run.run, context.settings)
    for hospital in context.plan.hospitals:
        run_step("local", context.run.run, context.settings, hospital)
    path = context.run.folder("federated") / "model.safetensors"
    model = RiskModel.load(context.run.path / found.files["model"])
    replace(model, intercepts={"hospital-1": 1.0}).save(path)
    given = {"study": "stroke", "run": context.run.run}
    files = {"model": context.run.relative(path)}
    context.run.write(Manifest(step="federated", files=files, **given))
    context.run.write(Manifest(step="champion", **given))
    return context


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return trained(tmp_path_factory.mktemp("score"))


def test_every_model_of_the_run_is_judged_on_test_rows_alone(context: Context) -> None:
    models = score(at(context, "hospital-1")).figures["models"]
    own = {f"local:{hospital}" for hospital in context.plan.hospitals}
    assert set(models) == {"central", "reference", "published", "federated", *own}
    scores = {key: Scores.model_validate(value) for key, value in models.items()}
    test = gold_rows(context, "hospital-1").of("test")
    assert {one.rows for one in scores.values()} == {len(test)}
    path = context.run.path / context.run.read("central").files["model"]
    risk = RiskModel.load(path).probability(test.x)
    assert scores["central"].auroc == pytest.approx(auroc(test.y, risk))
    assert scores["central"].mean_predicted == pytest.approx(risk.mean())


def test_the_hospitals_intercept_counts_there_and_only_there(context: Context) -> None:
    first = score(at(context, "hospital-1")).figures["models"]
    assert first["federated"]["mean_predicted"] > first["central"]["mean_predicted"] + 0.02
    second = score(at(context, "hospital-2")).figures["models"]
    assert second["federated"] == second["central"]


def test_correlations_leave_for_what_gates_compare_where_patients_are_many(tmp_path: Path) -> None:
    quick = ("evaluation.min_count=2", "gates.beats_reference_by=null")
    context = trained(tmp_path, quick)
    released = score(at(context, "hospital-1")).figures["correlations"]
    # The same model but for an intercept, which moves no patient past another.
    assert released == {"central": {"negatives": 1.0, "positives": 1.0}}
    many = trained(tmp_path / "many", ("evaluation.min_count=60",))
    assert score(at(many, "hospital-1")).figures["correlations"] == {}


def test_local_models_stay_at_home_where_the_study_says_so(tmp_path: Path) -> None:
    context = trained(tmp_path, ("evaluation.cross_site=false",))
    models = score(at(context, "hospital-2")).figures["models"]
    assert [key for key in models if key.startswith("local:")] == ["local:hospital-2"]


def test_a_run_without_models_says_what_to_run_first(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reference, local and federated first"):
        score(at(gold_run(tmp_path), "hospital-1"))


def test_a_model_of_other_columns_is_refused(tmp_path: Path) -> None:
    context = trained(tmp_path)
    path = context.run.path / context.run.read("central").files["model"]
    model = RiskModel.load(path)
    replace(model, features=(*model.features[1:], "other")).save(path)
    with pytest.raises(DataError, match="model central takes 22 features that are not"):
        score(at(context, "hospital-1"))


def test_scoring_loads_neither_torch_nor_mlflow_nor_spark(context: Context) -> None:
    code = f"""
import sys
from pathlib import Path
from tasks.settings import Settings
from tasks.run.step import run_step
settings = Settings(home=Path({str(context.settings.home)!r}))
run_step("score", {context.run.run!r}, settings, "hospital-3")
heavy = {{"torch", "mlflow", "pyspark", "pandas", "great_expectations", "flwr"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=400)
    assert context.run.find("score", "hospital-3") is not None
