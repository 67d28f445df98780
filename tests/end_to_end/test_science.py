"""What the models reach on real rows, over seeds, and that nothing leaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end, pytest.mark.timeout(1800)]

SEEDS = (1, 2, 3, 4, 5)


@pytest.fixture(scope="session")
def five_seeds(run_steps: Any, stroke_csv: Path) -> list[dict[str, Any]]:
    """The figures of five runs on the real table."""
    found = []
    for seed in SEEDS:
        _, folder = run_steps(f"real-{seed}", source=str(stroke_csv), seed=seed)
        found.append(folder.read("evaluate").figures)
    return found


def mean(results: list[dict[str, Any]], model: str, key: str) -> float:
    return float(np.mean([result[model][key] for result in results]))


def test_every_row_of_the_table_has_its_hospital(five_seeds: Any) -> None:
    for result in five_seeds:
        assert sum(each["rows"] for each in result["hospitals"]) >= 5100


def test_the_centralized_model_is_strong(five_seeds: Any) -> None:
    assert mean(five_seeds, "central", "auroc") >= 0.84


def test_nothing_is_good_enough_to_be_a_leak(five_seeds: Any) -> None:
    for result in five_seeds:
        for model in ("central", "federated", "reference"):
            assert result[model]["auroc"] <= 0.87


def test_the_federated_model_reaches_the_centralized_one(five_seeds: Any) -> None:
    ratios = [r["federated"]["auroc"] / r["central"]["auroc"] for r in five_seeds]
    assert np.mean(ratios) >= 0.99


def test_federation_beats_local_models_within_hospitals(five_seeds: Any) -> None:
    gain = mean(five_seeds, "federated", "auroc_within") - mean(
        five_seeds, "local_only", "auroc_within"
    )
    assert gain > 0


def test_the_federated_brier_score_is_the_centralized_ones(five_seeds: Any) -> None:
    assert abs(mean(five_seeds, "federated", "brier") - mean(five_seeds, "central", "brier")) < 1e-3


def test_ninety_nine_percent_are_reached_within_eight_rounds(five_seeds: Any) -> None:
    assert all(r["rounds_to_99"] is not None and r["rounds_to_99"] <= 8 for r in five_seeds)


def test_heart_keeps_every_patient_of_four_hospitals_with_missing_columns(run_steps: Any) -> None:
    plan, folder = run_steps("heart", study="heart")
    expected = {
        "cleveland": (303, 139),
        "hungarian": (294, 106),
        "switzerland": (123, 115),
        "va": (200, 149),
    }
    assert list(plan.hospitals) == list(expected)
    for hospital, counts in expected.items():
        silver = folder.read("validate", hospital)
        assert (silver.figures["rows"], silver.figures["positives"]) == counts
        assert (silver.figures["missing"]["chol"] == 1.0) == (hospital == "switzerland")
        patients = DeltaTable(silver.tables["silver"].uri).to_pyarrow_table()["patient"]
        assert len(patients.unique()) == len(patients)
    result = folder.read("evaluate").figures
    assert sum(each["rows"] for each in result["hospitals"]) >= 900
    assert result["federated"]["auroc"] >= 0.98 * result["central"]["auroc"]


def model_bytes(folder: Any, step: str, hospital: str | None = None) -> bytes:
    manifest = folder.read(step, hospital)
    return (folder.path / manifest.files["model"]).read_bytes()


def test_permuted_test_labels_change_no_weight_threshold_or_round(run_steps: Any) -> None:
    """Nor do two runs of one seed differ in anything else, nor real processes from one process."""
    plan, first = run_steps("small-a", rounds=3, seed=7, until="federated", real=True)
    # The second run gets the same gold tables, with the labels of their test rows shuffled.
    _, second = run_steps("small-b", rounds=3, seed=7, until="deal")
    rng = np.random.default_rng(0)
    changed = 0
    for hospital in plan.hospitals:
        manifest = first.read("features", hospital)
        gold = manifest.tables["gold"]
        table = DeltaTable(gold.uri, version=gold.version).to_pyarrow_table()
        label = table["label"].to_numpy().copy()
        test = np.flatnonzero(np.asarray(table["part"].to_pylist()) == "test")
        shuffled = rng.permutation(label[test])
        changed += int((shuffled != label[test]).sum())
        label[test] = shuffled
        index = table.schema.get_field_index("label")
        field = table.schema.field("label")
        table = table.set_column(index, field, pa.array(label, type=field.type))
        write_deltalake(gold.uri, table, mode="overwrite")
        version = DeltaTable(gold.uri).version()
        tables = {"gold": gold.model_copy(update={"version": version})}
        second.write(manifest.model_copy(update={"run": "small-b", "tables": tables}))
    assert changed > 20
    training = ("reference", "central", "local", "federated")
    run_steps("small-b", rounds=3, seed=7, only=training)
    for hospital in plan.hospitals:
        assert model_bytes(first, "local", hospital) == model_bytes(second, "local", hospital)
    for step in ("reference", "central", "federated"):
        assert model_bytes(first, step) == model_bytes(second, step), step
        for key in ("threshold", "best_round", "epochs"):
            assert first.read(step).figures.get(key) == second.read(step).figures.get(key)
    assert first.read("federated").figures == second.read("federated").figures
