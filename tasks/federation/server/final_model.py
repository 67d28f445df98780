"""After the last round: the best model, each hospital's own intercept, the decision threshold.

One message more: the candidates (the best model so far, and the last one, which no round has
judged yet) go to all hospitals, and every hospital judges both.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np

from tasks.errors import FederationError
from tasks.federation.messages import Closing, ClosingTask
from tasks.federation.run_files import MODEL
from tasks.federation.server.outcome import Outcome, Validation
from tasks.federation.server.round import Training
from tasks.model.artifact import RiskModel
from tasks.model.histogram import ScoreHistogram, summed
from tasks.model.metrics import choose_threshold

log = logging.getLogger(__name__)


def close(training: Training, stopped: str, deadline: float) -> Outcome:
    """Choose the result, write it, and say what happened.

    Args:
        training: After the last round.
        stopped: Why it was the last.
        deadline: Seconds left of the run.

    Raises:
        FederationError: Too few hospitals answered; the checkpoint is kept.
    """
    study, progress = training.study, training.progress
    plan = study.federation
    models = np.stack([progress.best_model, progress.model])
    gone = training.link.gone()
    asked = [name for name in training.hospitals if name not in gone]
    task = ClosingTask(models, progress.scaler).encode()
    answers = training.link.ask(
        "close",
        dict.fromkeys(asked, task),
        number=progress.round + 1,
        deadline=min(plan.deadlines.round, deadline),
        doubtful=training.doubtful,
        needed=plan.min_hospitals,
    )
    found = answers.decoded(lambda wire: Closing.decode(wire, len(models)), "answer was")
    if len(found) < plan.min_hospitals:
        why = "; ".join(f"{n}: {r}" for n, r in sorted({**gone, **answers.lost}.items()))
        raise FederationError(
            f"after the last round {len(found)} of at least {plan.min_hospitals} hospitals judged "
            f"the result ({why}). See to the others and run the step again: no round is repeated."
        )
    losses = [_loss(found, place) for place in range(len(models))]
    last = losses[1] < losses[0] or not math.isfinite(progress.best_loss)
    place = int(last)
    histogram: ScoreHistogram = summed([each.histograms[place] for each in found.values()])
    intercepts = {name: each.intercepts[place] for name, each in found.items()}
    threshold = choose_threshold(histogram.counted(), study.evaluation.threshold)
    RiskModel(
        kind="network",
        study=study.name,
        features=tuple(feature.name for feature in study.features),
        model=study.model,
        scaler=progress.scaler,
        flat=models[place],
        threshold=threshold,
        strata=study.evaluation.strata,
        intercepts=intercepts if plan.intercept else {},
    ).save(training.folder / MODEL)
    lost = {name: numbers for name, numbers in sorted(progress.lost.items()) if numbers}
    notes = [
        f"{name} was lost in {len(numbers)} of {progress.round} rounds: "
        f"{', '.join(map(str, numbers))}"
        for name, numbers in lost.items()
    ]
    without = sorted(set(training.hospitals) - set(found))
    if without:
        reasons = {**gone, **answers.lost}
        notes += [f"{n} did not judge the result: {reasons.get(n, 'not asked')}" for n in without]
    return Outcome(
        validation=Validation(auroc=histogram.auroc(), loss=histogram.loss()),
        threshold=threshold,
        rounds=progress.round,
        best_round=progress.round if last else progress.best_round,
        stopped=stopped,
        bytes_up=progress.bytes_up + answers.bytes_up,
        bytes_down=progress.bytes_down + answers.bytes_down,
        participation={name: progress.participation.get(name, 0) for name in training.hospitals},
        lost=lost,
        intercepts=intercepts if plan.intercept else {},
        notes=notes,
    )


def _loss(found: dict[str, Closing], place: int) -> float:
    rows = sum(each.rows for each in found.values())
    if not rows:
        return math.inf
    return sum(found[name].losses[place] * found[name].rows for name in sorted(found)) / rows


def model_path(folder: Path) -> Path:
    """Where ``close`` leaves the model."""
    return folder / MODEL
