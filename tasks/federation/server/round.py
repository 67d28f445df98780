"""One federated round, told in order.

1. Select the hospitals.
2. Send each the model, and what the strategy adds.
3. The hospitals train, and judge the model that came in on their validation rows.
4. Wait with a deadline: who is late or gone costs its share of this round.
5. Check the replies: enough of them, of the right shape, finite.
6. Weigh them and aggregate, sorted by hospital.
7. The strategy's server step gives the next model.
8. Tell the round as one event.
9. Keep a checkpoint.
10. Stop? Rounds, or no better validation loss.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tasks.errors import DataError, FederationError
from tasks.federation.messages import TrainTask, Update
from tasks.federation.server import checkpoint
from tasks.federation.server.checkpoint import Progress
from tasks.federation.server.early_stopping import stop_reason
from tasks.federation.server.learning_rate import factor
from tasks.federation.server.selection import select
from tasks.federation.server.transport import Answers, Link
from tasks.federation.server.weighting import weigh
from tasks.federation.strategies import Strategy
from tasks.model.histogram import summed
from tasks.study import Study
from tasks.telemetry.round_event import RoundEvent, append_event


@dataclass
class Training:
    """What the rounds of one run share.

    Attributes:
        study: The frozen study.
        hospitals: All hospitals of the run.
        link: The way to them.
        strategy: How updates become a model.
        progress: What is known so far; each round replaces it.
        folder: Where ``rounds.jsonl`` and the checkpoint are kept.
        fingerprint: Of the study and tables, for the checkpoint.
        doubtful: Hospitals that missed their last deadlines, and how many in a row.
    """

    study: Study
    hospitals: list[str]
    link: Link
    strategy: Strategy
    progress: Progress
    folder: Path
    fingerprint: str
    doubtful: dict[str, int]

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's file."""
        return self.folder / "checkpoint.npz"


def seed_of(seed: int, number: int, hospital: str) -> int:
    """The seed of one hospital's training in one round: the same in every run, unlike all others.

    Args:
        seed: The study's.
        number: The round.
        hospital: The hospital's name.
    """
    digest = hashlib.sha256(f"{seed}/{number}/{hospital}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def run_round(training: Training, note: str = "", deadline: float | None = None) -> str | None:
    """Do the next round.

    Args:
        training: What the rounds share; its progress moves on by one round.
        note: Anything out of the ordinary that led here.
        deadline: Seconds that are left of the run, if fewer than the round's deadline.

    Returns:
        Why training should stop, or None.

    Raises:
        FederationError: Fewer hospitals answered than the study needs. Nothing has changed.
    """
    started = time.monotonic()
    study, progress = training.study, training.progress
    plan, number = study.federation, progress.round + 1
    limit = min(plan.deadlines.round, deadline or math.inf)

    gone = training.link.gone()
    able = [name for name in training.hospitals if name not in gone]
    if len(able) < plan.min_hospitals:
        raise _too_few(number, [], gone, plan.min_hospitals)
    selected = select(plan.selection, able, progress.seen, seed=study.seed, number=number)
    rate = plan.learning_rate * factor(plan.schedule, number, plan.rounds, progress.losses)

    tasks = {name: _task(training, name, number, rate).encode() for name in selected}
    answers = training.link.ask(
        "train",
        tasks,
        number=number,
        deadline=limit,
        doubtful=training.doubtful,
        needed=plan.min_hospitals,
    )
    for name in answers.replies:
        training.doubtful.pop(name, None)
    for name in answers.late:
        training.doubtful[name] = training.doubtful.get(name, 0) + 1
    updates = checked(answers, len(progress.model))
    if len(updates) < plan.min_hospitals:
        raise _too_few(number, sorted(updates), answers.lost, plan.min_hospitals)

    weights = weigh(plan.weighting, {name: each.rows for name, each in updates.items()})
    result = training.strategy.aggregate(
        progress.model, updates, weights, number=number, learning_rate=rate
    )
    if not np.isfinite(result.model).all():
        raise DataError(
            f"round {number}: the aggregated model is not finite. Choose a smaller "
            "federation.learning_rate or server_learning_rate."
        )
    lost = dict(sorted(answers.lost.items()))
    after = advanced(progress, updates, answers, lost, number)
    after = replace(after, model=result.model, strategy=training.strategy.state())
    rows = {name: float(each.rows) for name, each in updates.items()}
    event = RoundEvent(
        round=number,
        rounds=plan.rounds,
        seconds=round(time.monotonic() - started, 3),
        selected=selected,
        replied=sorted(updates),
        lost=lost,
        weights=result.weights,
        train_loss=_mean({n: each.train_loss for n, each in updates.items()}, rows),
        validation_loss=after.losses[-1] if math.isfinite(after.losses[-1]) else None,
        validation_auroc=summed([each.histogram for each in updates.values()]).auroc(),
        hospital_loss={n: updates[n].validation_loss for n in sorted(updates)},
        bytes_up=answers.bytes_up,
        bytes_down=answers.bytes_down,
        learning_rate=rate,
        update_norm=float(np.linalg.norm(result.model.astype(np.float64) - progress.model)),
        note="; ".join(filter(None, [note, *(f"{n}: {why}" for n, why in lost.items())])),
    )
    append_event(training.folder / "rounds.jsonl", event)
    checkpoint.save(training.checkpoint, after, training.fingerprint)
    training.progress = after
    return stop_reason(plan.stop, after.losses, number, plan.rounds)


def checked(answers: Answers, parameters: int) -> dict[str, Update]:
    """The sound updates; the others are put to the lost ones with the reason.

    Args:
        answers: What came back.
        parameters: Length of the model.
    """
    return answers.decoded(lambda wire: Update.decode(wire, parameters), "update was")


def advanced(
    progress: Progress,
    updates: Mapping[str, Update],
    answers: Answers,
    lost: Mapping[str, str],
    number: int,
) -> Progress:
    """What is known after a round, all but the new model.

    The validation loss is that of all hospitals: one that did not answer this time counts with its
    last known loss, so that rounds with different hospitals compare.

    Args:
        progress: Before the round.
        updates: Sound updates by hospital.
        answers: For the bytes.
        lost: Hospitals without a sound update.
        number: The round.
    """
    seen = replace(
        progress.seen,
        rows={**progress.seen.rows, **{n: u.rows for n, u in updates.items()}},
        last_round={**progress.seen.last_round, **dict.fromkeys(updates, number)},
        last_loss={
            **progress.seen.last_loss,
            **{n: u.validation_loss for n, u in updates.items() if u.validation_rows},
        },
    )
    rows = {**progress.validation_rows, **{n: u.validation_rows for n, u in updates.items()}}
    known = {n: float(rows[n]) for n in seen.last_loss}
    loss = _mean(seen.last_loss, known)
    losses = [*progress.losses, math.inf if loss is None else loss]
    better = losses[-1] < progress.best_loss
    participation = dict(progress.participation)
    for name in updates:
        participation[name] = participation.get(name, 0) + 1
    return replace(
        progress,
        round=number,
        seen=seen,
        validation_rows=rows,
        losses=losses,
        best_loss=losses[-1] if better else progress.best_loss,
        best_round=number - 1 if better else progress.best_round,
        best_model=progress.model if better else progress.best_model,
        bytes_up=progress.bytes_up + answers.bytes_up,
        bytes_down=progress.bytes_down + answers.bytes_down,
        participation=participation,
        lost={**progress.lost, **{n: [*progress.lost.get(n, []), number] for n in lost}},
    )


def _task(training: Training, hospital: str, number: int, rate: float) -> TrainTask:
    return TrainTask(
        round=number,
        model=training.progress.model,
        correction=training.strategy.correction(hospital),
        scaler=training.progress.scaler,
        learning_rate=rate,
        proximal_mu=training.strategy.proximal_mu,
        seed=seed_of(training.study.seed, number, hospital),
    )


def _mean(values: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
    total = sum(weights[name] for name in sorted(values))
    if not total:
        return None
    return sum(values[name] * weights[name] for name in sorted(values)) / total


def _too_few(
    number: int, replied: list[str], lost: Mapping[str, str], needed: int
) -> FederationError:
    why = "; ".join(f"{name}: {reason}" for name, reason in sorted(lost.items())) or "no reason"
    return FederationError(
        f"round {number}: {len(replied)} of at least {needed} hospitals answered "
        f"({', '.join(replied) or 'none'}; {why}). See to those hospitals and run the step again: "
        "it goes on at this round."
    )
