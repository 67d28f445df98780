"""After the last round: the final model, each hospital's own intercept, the decision threshold.

Two questions: ``evaluate`` has all hospitals judge the candidates (the best model so far, and the
last one, which no round has judged yet), ``calibrate`` gives the result's scores, each hospital's
with its own intercept. Each is answered once in a run, so what is asked is kept before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tasks.errors import FederationError
from tasks.federation.messages import (
    CalibrateTask,
    Calibration,
    EvaluateTask,
    Evaluation,
    Question,
    Task,
)
from tasks.federation.run_files import MODEL
from tasks.federation.server.outcome import Outcome, Validation
from tasks.federation.server.run_state import RunState
from tasks.federation.update.stage import About, Total
from tasks.federation.wire import Doubles, Floats
from tasks.model.artifact import RiskModel
from tasks.model.intercept import variance_between
from tasks.model.metrics import choose_threshold

log = logging.getLogger(__name__)


def finish(run: RunState, stopped: str, deadline: float) -> Outcome:
    """Choose the result, write it, and say what happened.

    Args:
        run: After the last round.
        stopped: Why it was the last.
        deadline: Seconds for each of the two questions, if fewer than a round's.

    Raises:
        FederationError: Too few hospitals answered; the checkpoint is kept.
    """
    limit = min(run.study.federation.deadlines.round, deadline)
    if not run.state.stopped:
        run.keep(replace(run.state, stopped=stopped))
    models = np.stack([run.state.best_model, run.state.model])
    if run.state.result is None:
        evaluate = EvaluateTask(models=models, scaler=run.state.scaler)
        total, _ = _ask_all(run, Question.EVALUATE, evaluate, limit)
        run.keep(replace(run.state, result=_chosen(run, Evaluation(total.vector))))
    place, variance = run.state.result or (0, 0.0)
    calibrate = CalibrateTask(model=models[place], scaler=run.state.scaler, variance=variance)
    total, failed = _ask_all(run, Question.CALIBRATE, calibrate, limit)
    return _outcome(run, models[place], total, failed)


def _ask_all(
    run: RunState, question: Question, task: Task, deadline: float
) -> tuple[Total, dict[str, str]]:
    """Ask all hospitals that are there; returns their sum, and who is not in it and why."""
    plan, gone = run.study.federation, run.transport.gone()
    asked = [name for name in run.config.hospitals if name not in gone]
    replies = run.ask(question, dict.fromkeys(asked, task), deadline=deadline)
    run.state = run.state.received(replies)
    found = replies.decoded(question, run.sizes, run.check)
    failed = {**gone, **replies.failed}
    if len(found) < plan.min_hospitals:
        why = "; ".join(f"{name}: {reason}" for name, reason in sorted(failed.items()))
        raise FederationError(
            f"after the last round {len(found)} of at least {plan.min_hospitals} hospitals judged "
            f"the result ({why}). See to the others and run the step again: no round is repeated."
        )
    return run.pipeline.receive(found, About(question, 0)), failed


def _chosen(run: RunState, found: Evaluation) -> tuple[int, float]:
    """The place of the result among the candidates, and the variance of its intercepts."""
    vector, state = found.vector, run.state
    rows = max(vector.number("validation_rows"), 1.0)
    best, last = vector["losses"] / rows
    min_delta = run.study.federation.stop.min_delta
    place = int(last < best - min_delta or True not in state.better)
    sums: list[Doubles] = [vector[name] for name in Evaluation.SUMS]
    variance = variance_between(vector.number("hospitals"), *(float(each[place]) for each in sums))
    return place, variance


def _outcome(run: RunState, model: Floats, total: Total, failed: Mapping[str, str]) -> Outcome:
    study, state = run.study, run.state
    histogram = Calibration(total.vector).histogram
    intercepts = {}
    if study.federation.intercept:
        intercepts = {name: each.number("intercept") for name, each in (total.each or {}).items()}
    threshold = choose_threshold(histogram.counted(), study.evaluation.threshold)
    RiskModel(
        kind="network",
        study=study.name,
        features=tuple(feature.name for feature in study.features),
        model=study.model,
        scaler=state.scaler,
        flat=model,
        threshold=threshold,
        strata=study.evaluation.strata,
        intercepts=intercepts,
    ).save(run.folder / MODEL)
    lost = dict(sorted(state.lost.items()))
    notes = [
        f"{name} was lost in {len(numbers)} of {state.round} rounds: {', '.join(map(str, numbers))}"
        for name, numbers in lost.items()
    ]
    without = sorted(set(run.config.hospitals) - set(total.hospitals))
    notes += [f"{n} did not judge the result: {failed.get(n, 'not asked')}" for n in without]
    last = state.result is not None and state.result[0] == 1
    return Outcome(
        validation=Validation(auroc=histogram.auroc(), loss=histogram.loss()),
        threshold=threshold,
        rounds=state.round,
        best_round=state.round if last else state.best_round,
        stopped=state.stopped,
        bytes_up=state.bytes_up,
        bytes_down=state.bytes_down,
        participation={name: state.participation.get(name, 0) for name in run.config.hospitals},
        lost=lost,
        intercepts=intercepts,
        notes=notes,
    )
