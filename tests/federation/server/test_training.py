"""The server's rounds with real hospitals in the same process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from direct_link import DirectLink
from small_federation import ROWS, small_study

from tasks.errors import DataError, FederationError
from tasks.federation.server import checkpoint
from tasks.federation.server import training as server
from tasks.federation.server.outcome import Outcome
from tasks.federation.server.training import ServerConfig, train_federated
from tasks.study import Study
from tasks.study.learning import StrategyName
from tasks.telemetry.round_event import read_events


def train(
    folder: Path,
    study: Study,
    link: DirectLink | None = None,
    fingerprint: str = "f",
    nodes: dict[str, int] | None = None,
) -> Outcome:
    nodes = dict.fromkeys(ROWS, 1) if nodes is None else nodes
    config = ServerConfig(study=study, hospitals=list(ROWS), nodes=nodes, fingerprint=fingerprint)
    return train_federated(config, link or DirectLink(study), folder)


def model(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("strategy", get_args(StrategyName))
def test_every_strategy_learns_and_gives_the_same_bytes_twice(
    strategy: str, tmp_path: Path
) -> None:
    study = small_study(strategy=strategy, rounds=6, learning_rate=0.1)
    first = train(tmp_path / "a", study)
    losses = [event.validation_loss for event in read_events(tmp_path / "a" / "rounds.jsonl")]
    assert min(losses[1:]) < losses[0]  # type: ignore[type-var]
    assert first.validation.auroc is not None
    assert first.validation.auroc > 0.6
    assert first.rounds == 6
    second = train(tmp_path / "b", study)
    assert model(tmp_path / "a") == model(tmp_path / "b")
    assert first == second


@pytest.mark.parametrize("strategy", get_args(StrategyName))
def test_a_resumed_run_gives_the_bytes_of_an_unbroken_one(strategy: str, tmp_path: Path) -> None:
    study = small_study(strategy=strategy, rounds=4, learning_rate=0.1)
    train(tmp_path / "whole", study)
    broken = DirectLink(study, silent={3: list(ROWS)})
    with pytest.raises(FederationError, match="0 of at least 2"):
        train(tmp_path / "broken", study, broken)
    # A failed round is tried once more before the run gives up.
    assert [number for kind, number, _ in broken.asked if kind == "train"] == [1, 2, 3, 3]
    train(tmp_path / "broken", study)
    assert model(tmp_path / "whole") == model(tmp_path / "broken")
    events = read_events(tmp_path / "broken" / "rounds.jsonl")
    assert [event.round for event in events] == [1, 2, 3, 4]
    assert events[2].note == "resumed after round 2"


def test_an_event_told_twice_after_a_crash_stands_there_once(tmp_path: Path) -> None:
    study = small_study(rounds=3)
    train(tmp_path, study)
    kept = (tmp_path / "checkpoint.npz").read_bytes()
    before = (tmp_path / "rounds.jsonl").read_text()
    # As if the process had died between the fourth event and its checkpoint.
    (tmp_path / "rounds.jsonl").write_text(before + before.splitlines()[-1].replace(
        '"round":3', '"round":4') + "\n")  # fmt: skip
    (tmp_path / "checkpoint.npz").write_bytes(kept)
    train(tmp_path, small_study(rounds=3))
    assert [event.round for event in read_events(tmp_path / "rounds.jsonl")] == [1, 2, 3]


def test_a_checkpoint_of_another_study_is_refused(tmp_path: Path) -> None:
    train(tmp_path, small_study(rounds=1))
    with pytest.raises(DataError, match="of another study"):
        train(tmp_path, small_study(rounds=1), fingerprint="other")
    (tmp_path / "checkpoint.npz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        train(tmp_path, small_study(rounds=1))


def test_a_lost_hospital_costs_its_share_of_one_round(tmp_path: Path) -> None:
    study = small_study(rounds=3)
    outcome = train(tmp_path, study, DirectLink(study, silent={2: ["west"]}))
    assert outcome.lost == {"west": [2]}
    assert outcome.participation == {"north": 3, "south": 3, "west": 2}
    second = read_events(tmp_path / "rounds.jsonl")[1]
    assert second.weights == pytest.approx({"north": 300 / 540, "south": 240 / 540})
    assert "west: no answer in time" in second.note
    assert any("west was lost in 1 of 3 rounds: 2" in note for note in outcome.notes)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("model", b"\0" * 12, "field model must be"),
        ("model", "nan", "not finite"),
        ("steps", 0, "0 steps"),
        ("histogram", b"\1\0\0\0", "triples"),
        ("train_loss", float("nan"), "finite number"),
    ],
)
def test_an_unsound_update_is_refused_and_the_round_goes_on(
    field: str, value: Any, reason: str, tmp_path: Path
) -> None:
    study = small_study(rounds=1)
    link = DirectLink(study)
    if value == "nan":
        count = len(train_parameters(study, tmp_path / "other"))
        value = np.full(count, np.nan, np.float32).tobytes()
    link.changed["south"] = {field: value}
    link.hospitals["south"].answer("statistics", {})
    train(tmp_path, study, link)
    event = read_events(tmp_path / "rounds.jsonl")[0]
    assert event.replied == ["north", "west"]
    assert reason in event.lost["south"]


def train_parameters(study: Study, folder: Path) -> np.ndarray[Any, Any]:
    train(folder, study)
    found = checkpoint.load(folder / "checkpoint.npz", "f")
    assert found is not None
    return found.model


def test_too_few_present_is_an_error_that_names_the_absent(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    link = DirectLink(study)
    link.away = {"west": "its SuperNode ended with code 1", "south": "its SuperNode ended"}
    with pytest.raises(FederationError, match=r"1 of at least 2 .* absent: south, west"):
        train(tmp_path, study, link)


def test_a_hospital_without_a_registered_key_is_not_waited_for(tmp_path: Path) -> None:
    # Longer than a test may take.
    study = small_study(rounds=1, deadlines={"ready": 3000})
    link = DirectLink(study)
    link.away = {"west": ""}
    link.gone = dict  # type: ignore[method-assign]  # nobody knows that it will not come
    train(tmp_path, study, link, nodes={"north": 1, "south": 2})


def test_a_hospital_that_joins_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "JOINING", 0.01)
    study = small_study(rounds=2)
    link = DirectLink(study)
    link.joins_late = {"west": 3}
    outcome = train(tmp_path / "late", study, link)
    assert [who for kind, _, who in link.asked if kind == "statistics"] == [
        sorted(ROWS),
        *[["west"]] * 3,
    ]
    assert outcome == train(tmp_path / "at once", study)
    assert model(tmp_path / "late") == model(tmp_path / "at once")


def test_a_hospital_that_never_joins_is_left_out_after_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "JOINING", 0.01)
    study = small_study(rounds=2, deadlines={"ready": 0.3})
    link = DirectLink(study)
    link.joins_late = {"west": 10**9}
    outcome = train(tmp_path, study, link)
    assert outcome.participation == {"north": 2, "south": 2, "west": 0}
    events = read_events(tmp_path / "rounds.jsonl")
    assert events[0].lost == {"west": "NotJoined: not yet"}


def test_patience_stops_early_and_the_best_round_is_the_result(tmp_path: Path) -> None:
    study = small_study(rounds=40, learning_rate=3.0, local_epochs=6, stop={"patience": 3})
    outcome = train(tmp_path, study)
    assert outcome.rounds < 40
    assert "no better for 3 rounds" in outcome.stopped
    losses = [event.validation_loss for event in read_events(tmp_path / "rounds.jsonl")]
    assert outcome.best_round in (int(np.argmin(losses)), outcome.rounds)


def test_selection_asks_only_the_chosen(tmp_path: Path) -> None:
    study = small_study(rounds=6, min_hospitals=1, selection={"kind": "longest_unseen", "count": 1})
    link = DirectLink(study)
    outcome = train(tmp_path, study, link)
    assert outcome.participation == dict.fromkeys(ROWS, 2)
    assert all(len(who) == 1 for kind, _, who in link.asked if kind == "train")
    losses = [event.validation_loss for event in read_events(tmp_path / "rounds.jsonl")]
    assert all(loss is not None for loss in losses)


def test_the_schedule_reaches_the_hospitals(tmp_path: Path) -> None:
    study = small_study(rounds=3, learning_rate=0.2, schedule={"kind": "step", "every": 1})
    train(tmp_path, study)
    rates = [event.learning_rate for event in read_events(tmp_path / "rounds.jsonl")]
    assert rates == pytest.approx([0.2, 0.1, 0.05])


def test_a_run_that_its_deadline_ends_keeps_its_best_model(tmp_path: Path) -> None:
    train(tmp_path / "first", small_study(rounds=1))  # imports torch, which takes its time
    study = small_study(rounds=5000, deadlines={"round": 0.5, "run": 2.0})
    outcome = train(tmp_path, study)
    assert 1 <= outcome.rounds < 5000
    assert outcome.stopped == "the run's deadline of 2 s"
    assert (tmp_path / "model.safetensors").exists()
