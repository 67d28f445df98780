"""A real federation of three small hospitals, looked at from all sides."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_federation import ROWS, Step

from tasks.model.artifact import RiskModel
from tasks.model.metrics import auroc, log_loss
from tasks.model.rows import load_rows
from tasks.model.scaling import Moments, Scaler
from tasks.run.step import run_step

pytestmark = pytest.mark.slow


def test_every_round_is_told(finished: Step) -> None:
    events = finished.events()
    assert [event.round for event in events] == [1, 2, 3]
    for event in events:
        assert event.selected == event.replied == sorted(ROWS)
        assert sum(event.weights.values()) == pytest.approx(1)
        assert event.weights["north"] == pytest.approx(180 / 432)
        assert event.learning_rate == finished.context.study.federation.learning_rate
        assert event.update_norm is not None
        assert event.update_norm > 0
        assert f"round {event.round}/3: validation loss" in finished.output
    assert events[2].validation_loss < events[0].validation_loss  # type: ignore[operator]


def test_bytes_are_those_of_the_arrays(finished: Step) -> None:
    parameters = len(RiskModel.load(finished.folder / "model.safetensors").flat)
    first, second, _ = finished.events()
    assert 3 * 4 * parameters < first.bytes_down < 3 * 4 * parameters + 2000
    # From the second round on, SCAFFOLD's variate goes down too; its change always goes up.
    assert 6 * 4 * parameters < second.bytes_down < 6 * 4 * parameters + 2000
    assert 6 * 4 * parameters < second.bytes_up < 6 * 4 * parameters + 6000


def test_the_figures_are_those_of_the_contract(finished: Step) -> None:
    figures = finished.context.run.read("federated").figures
    assert set(figures) == {
        *("validation", "threshold", "rounds", "best_round", "stopped", "bytes_up", "bytes_down"),
        *("participation", "lost", "intercepts"),
    }
    assert figures["rounds"] == 3
    assert figures["stopped"] == "all 3 rounds are done"
    assert figures["participation"] == dict.fromkeys(ROWS, 3)
    assert figures["lost"] == {}
    assert 0 < figures["threshold"] < 1
    json.dumps(figures)


def test_the_model_is_scaled_as_pooled_rows_would_be(finished: Step) -> None:
    study = finished.context.study
    model = RiskModel.load(finished.folder / "model.safetensors")
    pooled = np.concatenate(
        [
            load_rows(finished.context.settings.table(h, "small", "gold"), study).of("train").x
            for h in ROWS
        ]
    )
    expected = Scaler.of(Moments.of(pooled), study.features)
    np.testing.assert_allclose(model.scaler.mean, expected.mean, rtol=1e-9)
    np.testing.assert_allclose(model.scaler.std, expected.std, rtol=1e-9)


def test_the_validation_figures_agree_with_rows(finished: Step) -> None:
    study, figures = finished.context.study, finished.context.run.read("federated").figures
    model = RiskModel.load(finished.folder / "model.safetensors")
    y, logit = [], []
    for hospital in ROWS:
        uri = finished.context.settings.table(hospital, "small", "gold")
        rows = load_rows(uri, study).of("validation")
        y.append(rows.y)
        logit.append(model.logits(rows.x, hospital))
    exact = auroc(np.concatenate(y), np.concatenate(logit))
    assert figures["validation"]["auroc"] == pytest.approx(exact, abs=0.02)
    loss = log_loss(np.concatenate(y), np.concatenate(logit))
    assert figures["validation"]["loss"] == pytest.approx(loss, abs=0.02)


def test_the_best_round_has_the_lowest_validation_loss(finished: Step) -> None:
    figures = finished.context.run.read("federated").figures
    losses = [event.validation_loss for event in finished.events()]
    known = int(np.argmin(losses))
    assert figures["best_round"] in (known, 3)


def test_a_hospital_is_told_its_own_table_only(finished: Step) -> None:
    for hospital in ROWS:
        told = finished.seen[hospital]
        assert f"/lake/{hospital}/" in told
        for other in set(ROWS) - {hospital}:
            assert f"/lake/{other}/" not in told
        variables = finished.seen[f"{hospital} environment"]
        assert not [name for name in variables if name.startswith("FEDRISK_")]
        assert variables["FLWR_TELEMETRY_ENABLED"] == "0"
        assert finished.seen[f"{hospital} listens"] == {"127.0.0.1"}


def test_keys_are_private_and_gone_after_the_run(finished: Step) -> None:
    assert {"node.key", "server.key", "hospital.json"} <= set(finished.seen["modes"])
    # The server's own configuration holds the study and node ids only.
    secret = {name: mode for name, mode in finished.seen["modes"].items() if name != "server.json"}
    assert set(secret.values()) == {0o600}, secret
    assert not (finished.folder / "private").exists()


def test_nothing_is_left_running(finished: Step) -> None:
    assert finished.left() == []


def test_the_step_is_done_once(finished: Step) -> None:
    before = (finished.folder / "rounds.jsonl").read_bytes()
    manifest = run_step("federated", "finished", finished.context.settings)
    assert manifest == finished.context.run.read("federated")
    assert (finished.folder / "rounds.jsonl").read_bytes() == before
