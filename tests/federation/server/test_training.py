"""The server's rounds with real hospitals in the same process."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from direct_transport import DirectTransport, config_of, hospital_of
from small_federation import ROWS, small_study

from tasks.errors import DataError, FederationError
from tasks.federation.messages import Question
from tasks.federation.server import checkpoint
from tasks.federation.server import training as server
from tasks.federation.server.outcome import Outcome
from tasks.federation.server.training import train_federated
from tasks.federation.server.transport import Replies
from tasks.federation.wire import Wire
from tasks.files import write_atomically
from tasks.study import Study
from tasks.study.learning import StrategyName
from tasks.telemetry.round_event import RoundEvent, read_events

LOST = {2: ["west"]}


def train(
    folder: Path,
    study: Study,
    link: DirectTransport | None = None,
    fingerprint: str = "f",
    nodes: dict[str, int] | None = None,
) -> Outcome:
    config = config_of(study, fingerprint)
    if nodes is not None:
        config = config.model_copy(update={"nodes": nodes})
    return train_federated(config, link or DirectTransport(study), folder)


def model(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def events_of(folder: Path) -> list[RoundEvent]:
    return read_events(folder / "rounds.jsonl")


@pytest.mark.parametrize("strategy", get_args(StrategyName))
def test_every_strategy_learns_and_gives_the_same_bytes_twice(
    strategy: str, tmp_path: Path
) -> None:
    study = small_study(strategy=strategy, rounds=6, learning_rate=0.1)
    first = train(tmp_path / "a", study)
    losses = [event.validation_loss for event in events_of(tmp_path / "a")]
    assert min(losses[1:]) < losses[0]  # type: ignore[type-var]
    assert first.validation.auroc is not None
    assert first.validation.auroc > 0.6
    assert first.rounds == 6
    second = train(tmp_path / "b", study)
    assert model(tmp_path / "a") == model(tmp_path / "b")
    assert first == second


class Dies(DirectTransport):
    """A server that is killed when the answers to a question are there, and no checkpoint yet."""

    def __init__(self, study: Study, question: Question, number: int) -> None:
        super().__init__(study, LOST)
        self.dies = (question.value, number)

    def ask(self, question: Question, tasks: Any, **options: Any) -> Replies:
        found = super().ask(question, tasks, **options)
        if self.asked[-1][:2] == self.dies:
            raise KeyboardInterrupt
        return found

    def again(self, study: Study) -> DirectTransport:
        """The same hospitals behind the next server, each a process that read its rows again."""
        next_one = DirectTransport(study, LOST)
        for name, hospital in self.hospitals.items():
            next_one.hospitals[name] = hospital_of(study, name, hospital.config.lake)
        return next_one


@pytest.mark.parametrize(
    ("question", "number"),
    [(Question.TRAIN, 3), (Question.TRAIN, 2), (Question.EVALUATE, 0), (Question.CALIBRATE, 0)],
)
@pytest.mark.parametrize("strategy", ["scaffold", "fedadam"])
def test_a_resumed_run_gives_the_bytes_of_an_unbroken_one(
    strategy: str, question: Question, number: int, tmp_path: Path
) -> None:
    """With a lost answer, a hospital that missed the statistics, and restarted hospitals."""
    deadlines = {"ready": 0.001}
    study = small_study(strategy=strategy, rounds=4, learning_rate=0.1, deadlines=deadlines)
    unbroken, broken = DirectTransport(study, LOST), Dies(study, question, number)
    unbroken.joins_late, broken.joins_late = {"south": 2}, {"south": 2}
    whole = train(tmp_path / "whole", study, unbroken)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", study, broken)
    resumed = train(tmp_path / "broken", study, broken.again(study))
    assert model(tmp_path / "whole") == model(tmp_path / "broken")
    assert resumed.lost == whole.lost == {"south": [1], "west": [2]}
    assert [event.round for event in events_of(tmp_path / "broken")] == [1, 2, 3, 4]


def test_a_failed_round_is_tried_once_more_and_then_at_the_next_start(tmp_path: Path) -> None:
    study = small_study(rounds=4)
    broken = DirectTransport(study, silent={3: list(ROWS)})
    with pytest.raises(FederationError, match="0 of at least 2"):
        train(tmp_path, study, broken)
    assert [number for kind, number, _ in broken.asked if kind == "train"] == [1, 2, 3, 3]
    broken.silent.clear()
    train(tmp_path, study, broken)
    assert events_of(tmp_path)[2].note == "resumed after round 2"


def test_an_event_that_stands_twice_after_a_crash_is_dropped(tmp_path: Path) -> None:
    study, link = small_study(rounds=3), DirectTransport(small_study(rounds=3))
    train(tmp_path, study, link)
    path = tmp_path / "rounds.jsonl"
    # As if the process had died between the fourth event and its checkpoint.
    fourth = path.read_text().splitlines()[-1].replace('"round":3', '"round":4')
    path.write_text(path.read_text() + fourth + "\n")
    train(tmp_path, study, link)
    assert [event.round for event in events_of(tmp_path)] == [1, 2, 3]


def test_a_checkpoint_of_another_study_is_refused(tmp_path: Path) -> None:
    train(tmp_path, small_study(rounds=1))
    with pytest.raises(DataError, match="of another study"):
        train(tmp_path, small_study(rounds=1), fingerprint="other")
    # As an earlier fedrisk left it, with the same fingerprint.
    about = np.frombuffer(b'{"fingerprint": "f", "best_loss": 0.5}', np.uint8)
    np.savez(tmp_path / "checkpoint.npz", about=about)
    with pytest.raises(DataError, match="cannot be read"):
        train(tmp_path, small_study(rounds=1))
    (tmp_path / "checkpoint.npz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        train(tmp_path, small_study(rounds=1))


def test_a_lost_hospital_costs_its_share_of_one_round(tmp_path: Path) -> None:
    study = small_study(rounds=3)
    outcome = train(tmp_path, study, DirectTransport(study, silent={2: ["west"]}))
    assert outcome.lost == {"west": [2]}
    assert outcome.participation == {"north": 3, "south": 3, "west": 2}
    second = events_of(tmp_path)[1]
    assert second.weights == pytest.approx({"north": 300 / 540, "south": 240 / 540})
    assert "west: no answer in time" in second.note
    assert any("west was lost in 1 of 3 rounds: 2" in note for note in outcome.notes)


def replaced(**fields: Any) -> Callable[[Wire], Wire]:
    return lambda wire: {**wire, **{k: v(wire[k]) if callable(v) else v for k, v in fields.items()}}


def doubles(*values: float) -> bytes:
    return np.array(values, np.float64).tobytes()


def times(factor: float) -> Callable[[bytes], bytes]:
    return lambda content: (np.frombuffer(content, np.float32) * np.float32(factor)).tobytes()


MALFORMED: dict[str, tuple[Callable[[Wire], Any], str]] = {
    "a field of another length": (replaced(update=b"\0" * 12), "field update must be"),
    "numbers that are not finite": (replaced(update=times(math.nan)), "not finite"),
    "a field that is missing": (lambda wire: {"weight": wire["weight"]}, "the fields are"),
    "a field too many": (lambda wire: {**wire, "more": 1}, "the fields are"),
    "nothing at all": (lambda wire: {}, "the fields are"),
    "a text for an array": (replaced(train_loss="much"), "field train_loss must be"),
    "a trillion rows": (replaced(rows=doubles(1e12), weight=doubles(1e12)), "its manifest says"),
    "no weight": (replaced(weight=doubles(0.0)), "weight is 0, its manifest says"),
    "a loss below 0": (replaced(validation_loss=doubles(-1.0)), "below 0"),
    "half a count": (replaced(histogram=b"\1\0\0\0"), "pairs of a place and a count"),
    "a place beyond the grid": (
        replaced(histogram=np.array([10**6, 1], np.int32).tobytes()),
        "at each of",
    ),
    "more patients than there are": (
        replaced(histogram=np.array([5, 10**6], np.int32).tobytes()),
        "cannot be above",
    ),
    "a norm of 1e9": (replaced(update=times(1e12)), "its update has norm"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_an_unsound_answer_costs_its_sender_the_round_and_nobody_else_anything(
    kind: str, tmp_path: Path
) -> None:
    study = small_study(rounds=1)
    link = DirectTransport(study)
    link.changed["south"], reason = MALFORMED[kind]
    train(tmp_path, study, link)
    [event] = events_of(tmp_path)
    assert event.replied == ["north", "west"]
    assert "its answer was refused" in event.lost["south"]
    assert reason in event.lost["south"]


def test_a_study_may_give_the_longest_update_itself(tmp_path: Path) -> None:
    study = small_study(rounds=1, max_update_norm=1e-6)
    with pytest.raises(FederationError, match="the bound is 1e-06"):
        train(tmp_path, study)


def test_a_hospital_that_missed_the_statistics_is_asked_for_them_before_its_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(rounds=3, deadlines={"ready": 0.001})
    link = DirectTransport(study)
    link.joins_late = {"west": 3}
    outcome = train(tmp_path, study, link)
    asked = [(kind, number) for kind, number, who in link.asked if "west" in who]
    assert asked[:5] == [("statistics", 0)] * 4 + [("train", 3)]
    assert outcome.participation == {"north": 3, "south": 3, "west": 1}
    state = checkpoint.load(tmp_path / "checkpoint.npz", "f")
    assert state is not None
    assert state.history.seen == sorted(ROWS)


def test_a_hospital_that_comes_later_is_no_reason_to_keep_an_earlier_model(tmp_path: Path) -> None:
    """Its loss is higher, so a mean over those that answer would rise: only common ones compare."""
    study = small_study(rounds=6, stop={"patience": 2, "min_delta": 0}, learning_rate=0.02)
    late = {number: ["north"] for number in (1, 2)}
    outcome = train(tmp_path, study, DirectTransport(study, silent=late))
    losses = [event.validation_loss or 0.0 for event in events_of(tmp_path)]
    assert losses[2] > losses[1]
    assert outcome.rounds == outcome.best_round == 6


def test_a_round_is_better_only_by_the_least_difference(tmp_path: Path) -> None:
    """Losses that fall by less than that do not count, but add up until they do."""
    study = small_study(rounds=6, stop={"min_delta": 0.02}, learning_rate=0.02)
    train(tmp_path, study)
    state = checkpoint.load(tmp_path / "checkpoint.npz", "f")
    assert state is not None
    losses = [event.validation_loss or 0.0 for event in events_of(tmp_path)]
    best, better = math.inf, []
    for loss in losses:
        better.append(loss < best - 0.02)
        best = loss if better[-1] else best
    assert state.better == better
    assert True in better[1:]
    assert False in better


@pytest.mark.parametrize(
    ("positives", "labelled"), [((0, 3, 40), ["west"]), ((50, 3, 40), ["north", "west"])]
)
def test_a_suppressed_number_of_positives_stays_out_of_the_prevalence(
    positives: tuple[int, ...], labelled: list[str], tmp_path: Path, monkeypatch: Any
) -> None:
    seen: list[float | None] = []
    real = server._first_model
    monkeypatch.setattr(server, "_first_model", lambda s, p: seen.append(p) or real(s, p))
    study = small_study(rounds=1)
    link = DirectTransport(study)
    for (name, hospital), count in zip(link.hospitals.items(), positives, strict=True):
        hospital.rows.y[:] = 0.0
        hospital.rows.y[:count] = 1.0
        assert name in ROWS
    train(tmp_path, study, link)
    kept = {n: c for n, c in zip(ROWS, positives, strict=True) if n in labelled}
    assert seen == [pytest.approx(sum(kept.values()) / sum(ROWS[n] * 3 / 5 for n in kept))]


def test_too_few_present_is_an_error_that_names_the_absent(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    link = DirectTransport(study)
    link.away = {"west": "its SuperNode ended with code 1", "south": "its SuperNode ended"}
    with pytest.raises(FederationError, match=r"1 of at least 2 .* absent: south, west"):
        train(tmp_path, study, link)


def test_a_hospital_without_a_registered_key_is_not_waited_for(tmp_path: Path) -> None:
    # Longer than a test may take.
    study = small_study(rounds=1, deadlines={"ready": 3000})
    link = DirectTransport(study)
    link.away = {"west": ""}
    link.gone = dict  # type: ignore[method-assign]  # its absence is not known
    train(tmp_path, study, link, nodes={"north": 1, "south": 2})


def test_a_hospital_that_joins_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ASK_AGAIN", 0.01)
    study = small_study(rounds=2)
    link = DirectTransport(study)
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
    monkeypatch.setattr(server, "ASK_AGAIN", 0.01)
    study = small_study(rounds=2, deadlines={"ready": 0.3})
    link = DirectTransport(study)
    link.joins_late = {"west": 10**9}
    outcome = train(tmp_path, study, link)
    assert outcome.participation == {"north": 2, "south": 2, "west": 0}
    assert events_of(tmp_path)[0].lost == {"west": "NotJoined: not yet"}


def test_patience_stops_early_and_the_best_round_is_the_result(tmp_path: Path) -> None:
    study = small_study(rounds=40, learning_rate=3.0, local_epochs=6, stop={"patience": 3})
    outcome = train(tmp_path, study)
    assert outcome.rounds < 40
    assert "no better for 3 rounds" in outcome.stopped
    losses = [event.validation_loss for event in events_of(tmp_path)]
    assert outcome.best_round in (int(np.argmin(losses)), outcome.rounds)


def test_selection_asks_only_the_chosen(tmp_path: Path) -> None:
    study = small_study(rounds=6, min_hospitals=1, selection={"kind": "longest_unseen", "count": 1})
    link = DirectTransport(study)
    outcome = train(tmp_path, study, link)
    assert outcome.participation == dict.fromkeys(ROWS, 2)
    assert all(len(who) == 1 for kind, _, who in link.asked if kind == "train")
    losses = [event.validation_loss for event in events_of(tmp_path)]
    assert all(loss is not None for loss in losses)


def test_the_schedule_reaches_the_hospitals(tmp_path: Path) -> None:
    study = small_study(rounds=3, learning_rate=0.2, schedule={"kind": "step", "every": 1})
    train(tmp_path, study)
    rates = [event.learning_rate for event in events_of(tmp_path)]
    assert rates == pytest.approx([0.2, 0.1, 0.05])


def test_a_run_that_its_deadline_ends_keeps_its_best_model(tmp_path: Path) -> None:
    train(tmp_path / "first", small_study(rounds=1))  # imports torch, which takes its time
    study = small_study(rounds=5000, deadlines={"round": 0.5, "run": 2.0})
    outcome = train(tmp_path, study)
    assert 1 <= outcome.rounds < 5000
    assert outcome.stopped == "the run's deadline of 2 s"
    assert (tmp_path / "model.safetensors").exists()


class Stored(DirectTransport):
    """Looks, whenever hospitals are asked, whether the newest checkpoint is in the store."""

    def __init__(self, study: Study, folder: Path) -> None:
        super().__init__(study)
        self.folder, self.found = folder, list[bool]()

    def ask(self, question: Question, tasks: Any, **options: Any) -> Replies:
        if question is not Question.STATISTICS:
            kept, stored = self.folder / "checkpoint.npz", self.folder / "store.npz"
            self.found.append(kept.read_bytes() == stored.read_bytes())
        return super().ask(question, tasks, **options)


def test_a_checkpoint_is_in_the_store_before_the_next_question_is_asked(tmp_path: Path) -> None:
    study = small_study(rounds=3)
    config = config_of(study).model_copy(update={"shared": True})
    transport, over = Stored(study, tmp_path), threading.Event()

    def launcher() -> None:
        """Puts each new checkpoint into the store, a moment later."""
        kept, known = tmp_path / "checkpoint.npz", 0
        while not over.wait(0.05):
            if kept.exists() and kept.stat().st_mtime_ns != known:
                known = kept.stat().st_mtime_ns
                (tmp_path / "store.npz").write_bytes(kept.read_bytes())
                write_atomically(tmp_path / "private" / "stored", str(known).encode())

    thread = threading.Thread(target=launcher)
    thread.start()
    try:
        train_federated(config, transport, tmp_path)
    finally:
        over.set()
        thread.join()
    # Three rounds, and the two questions after them.
    assert transport.found == [True] * 5


def test_a_store_that_stays_away_ends_the_run_with_its_checkpoint_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "STORE_AWAY", 0.1)
    config = config_of(small_study(rounds=1)).model_copy(update={"shared": True})
    with pytest.raises(FederationError, match="not put into the store"):
        train_federated(config, DirectTransport(config.study), tmp_path)
    assert (tmp_path / "checkpoint.npz").exists()
