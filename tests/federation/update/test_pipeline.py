"""The pipeline with stages of a test's own: order, both ends, restarts, and what does not go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from direct_transport import DirectTransport, config_of
from small_federation import small_study

from tasks.errors import FederationError, StudyError
from tasks.federation.hospital import client
from tasks.federation.messages import Question
from tasks.federation.server import checkpoint, training
from tasks.federation.update.pipeline import Pipeline
from tasks.federation.update.stage import About, Stage, State, Total
from tasks.federation.vector import Segment, Vector
from tasks.study import Federation
from tasks.telemetry.round_event import read_events

LAYOUT = {"update": Segment(2, "float32"), "weight": Segment(1)}
TRAIN = About(Question.TRAIN, 1)


def vector(update: list[float], weight: float = 1.0) -> Vector:
    return Vector.of(LAYOUT, update=update, weight=weight)


class Times(Stage):
    """Multiplies at the hospital, divides at the server, and counts."""

    def __init__(self, factor: float) -> None:
        self.factor, self.sent = factor, 0

    def send(self, vector: Vector, about: About) -> Vector:
        self.sent += 1
        return vector.scaled({"update": self.factor})

    def receive(self, total: Total, about: About) -> Total:
        opened = total.vector.scaled({"update": 1 / self.factor})
        return Total(opened, total.hospitals, total.each)

    def state(self) -> State:
        return {"sent": np.array(self.sent)}

    def restore(self, state: State) -> None:
        self.sent = int(state.get("sent", np.array(0)))


class Plus(Stage):
    """Adds one a hospital, and hides single vectors."""

    protects = True

    def send(self, vector: Vector, about: About) -> Vector:
        return vector + Vector.of(vector.layout, update=np.ones(len(vector["update"])))

    def receive(self, total: Total, about: About) -> Total:
        count = np.full(len(total.vector["update"]), len(total.hospitals))
        array = total.vector + Vector.of(total.vector.layout, update=-count)
        return Total(array, total.hospitals, None)


def test_stages_go_forward_at_the_hospital_and_backward_at_the_server() -> None:
    pipeline = Pipeline([Times(2.0), Plus()])
    sent = {h: pipeline.send(vector([x, 0.5]), TRAIN) for h, x in (("b", 3.0), ("a", 1.0))}
    np.testing.assert_array_equal(sent["b"]["update"], [7.0, 2.0])
    total = pipeline.receive(sent, TRAIN)
    np.testing.assert_array_equal(total.vector["update"], [4.0, 1.0])
    assert total.hospitals == ("a", "b")
    assert total.each is None


def test_a_stage_goes_on_from_its_own_state() -> None:
    first, second = (Pipeline([Plus(), Times(2.0)]) for _ in range(2))
    first.send(vector([1, 1]), TRAIN)
    second.restore(first.state())
    second.send(vector([1, 1]), TRAIN)
    assert second.state()["1/sent"] == 2
    second.restore({})
    assert second.state()["1/sent"] == 0


@pytest.mark.parametrize(
    ("needs_each", "plan", "reason"),
    [
        (True, {"strategy": "krum"}, "krum compares single updates"),
        (False, {"selection": {"kind": "loss", "count": 2}}, "selection.kind"),
        (False, {"strategy": "fedavg", "weighting": {"kind": "capped", "cap": 0.5}}, "weighting"),
    ],
)
def test_a_study_that_needs_what_a_stage_hides_is_refused(
    needs_each: bool, plan: Mapping[str, object], reason: str
) -> None:
    study = Federation.model_validate(plan)
    with pytest.raises(StudyError, match=reason):
        Pipeline([Plus()]).check(study, needs_each)
    Pipeline([Times(1.0)]).check(study, needs_each)


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends of every federation of the test have a stage that hides single vectors."""
    for module in (client, training):
        monkeypatch.setattr(module, "pipeline_of", lambda *_: Pipeline([OnlyUpdates()]))


class OnlyUpdates(Plus):
    """Leaves answers without an update as they are."""

    def send(self, vector: Vector, about: About) -> Vector:
        return super().send(vector, about) if about.question is Question.TRAIN else vector

    def receive(self, total: Total, about: About) -> Total:
        if about.question is Question.TRAIN:
            return super().receive(total, about)
        return Total(total.vector, total.hospitals, None)


def test_a_run_whose_vectors_are_hidden_trains_and_tells_of_no_single_hospital(
    tmp_path: Path, hidden: None
) -> None:
    study = small_study(rounds=3, learning_rate=0.1)
    transport = DirectTransport(study, silent={2: ["west"]})
    outcome = training.train_federated(config_of(study), transport, tmp_path)
    events = read_events(tmp_path / "rounds.jsonl")
    losses = [event.validation_loss or 9.0 for event in events]
    assert losses[2] < losses[0]
    assert all("summed" in event.note for event in events)
    assert not any(event.weights or event.hospital_loss for event in events)
    assert outcome.intercepts == {}
    # Only rounds with the same hospitals compare.
    state = checkpoint.load(tmp_path / "checkpoint.npz", "f")
    assert state is not None
    assert state.better == [True, None, True]


def test_an_opened_sum_beyond_the_bound_is_discarded_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: None
) -> None:
    monkeypatch.setattr(training.run_round.__module__ + ".check_answers", _unchecked)
    study = small_study(rounds=1, max_update_norm=1e-6)
    with pytest.raises(FederationError, match="the mean update has norm"):
        training.train_federated(config_of(study), DirectTransport(study), tmp_path)


def _unchecked(run: training.RunState, replies: training.Replies) -> dict[str, Vector]:
    return replies.decoded(Question.TRAIN, run.sizes, run.check)
