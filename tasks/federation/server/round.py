"""One federated round in eleven steps; their numbers stand in ``run_round`` too.

1. Choose the hospitals; one that has not given its statistics is asked for them first.
2. Ask each: the model, and what the strategy sends to all.
3. The hospitals train, and judge the model that came in on their validation rows.
4. Their answers pass the pipeline's stages forward.
5. Wait with a deadline: who is late or gone costs its share of this round.
6. Check the answers: enough of them, of the right form, with the manifest's rows, of sound length.
7. Stages backward: open the sum, in the order of the hospitals' names.
8. The strategy's step gives the next model.
9. Report the round as one event.
10. Keep a checkpoint.
11. Stop? Rounds, or no better validation loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np

from tasks.errors import DataError, FederationError
from tasks.federation.learning_rate import factor
from tasks.federation.messages import Question, StatisticsTask, TrainTask, Update
from tasks.federation.run_files import ROUNDS
from tasks.federation.server.early_stopping import stop_reason
from tasks.federation.server.run_state import RunState
from tasks.federation.server.selection import select
from tasks.federation.server.transport import Replies
from tasks.federation.strategies.strategy import mean_update
from tasks.federation.update.stage import About, Total
from tasks.federation.vector import Vector
from tasks.telemetry.round_event import RoundEvent, append_event

NORM_FACTOR = 10.0
"""An update this many times longer than the round's median is taken for broken."""


def run_round(run: RunState, note: str = "", deadline: float = math.inf) -> str | None:
    """Do the next round.

    Args:
        run: What the rounds share; its state moves on by one round.
        note: Anything out of the ordinary that led here.
        deadline: Seconds that are left of the run.

    Returns:
        Why training should stop, or None.

    Raises:
        FederationError: Fewer hospitals answered than the study needs. Nothing has changed.
    """
    started = time.monotonic()
    study, state = run.study, run.state
    plan, number = study.federation, state.round + 1
    limit = min(plan.deadlines.round, deadline)
    # 1 Choose the hospitals.
    gone = run.transport.gone()
    able = [name for name in run.config.hospitals if name not in gone]
    if len(able) < plan.min_hospitals:
        raise too_few(number, [], gone, plan.min_hospitals)
    selected = select(
        plan.selection, able, state.history, run.train_rows, seed=study.seed, number=number
    )
    replies = ask_newcomers(run, selected, limit)
    state = run.state
    # 2 Ask each.
    known = [name for name in selected if name in state.history.seen]
    weights = run.weights(run.config.hospitals)
    about = About(Question.TRAIN, number, "", sum(weights[name] for name in state.history.seen))
    multiplied = factor(plan.schedule, number, plan.rounds, state.better)
    tasks = tasks_of(run, known, about, multiplied)
    # 3 The hospitals train, 4 stages forward (``hospital/client.py``), 5 wait with the deadline.
    replies.merge(run.ask(Question.TRAIN, tasks, deadline=limit))
    # 6 Check the answers.
    answers = check_answers(run, replies)
    if len(answers) < plan.min_hospitals:
        raise too_few(number, list(answers), replies.failed, plan.min_hospitals)
    # 7 Stages backward.
    total = run.pipeline.receive(weighed(run, answers), about)
    check_total(run, total)
    # 8 The strategy's step.
    model = run.strategy.step(state.model, total, about)
    if not np.isfinite(model).all():
        raise DataError(
            f"round {number}: the next model is not finite. Choose a smaller "
            "federation.learning_rate or server_learning_rate."
        )
    # 9 Report the round.
    summed, failed = Update(total.vector), dict(sorted(replies.failed.items()))
    hidden = "" if total.each else "summed: no hospital's figures are known"
    event = RoundEvent(
        round=number,
        rounds=plan.rounds,
        seconds=round(time.monotonic() - started, 3),
        selected=selected,
        replied=list(total.hospitals),
        lost=failed,
        weights=run.strategy.weights(total),
        train_loss=summed.train_loss,
        validation_loss=summed.validation_loss,
        validation_auroc=summed.histogram.auroc(),
        hospital_loss={n: Update(v).validation_loss or 0.0 for n, v in (total.each or {}).items()},
        bytes_up=replies.bytes_up,
        bytes_down=replies.bytes_down,
        learning_rate=plan.learning_rate * multiplied,
        update_norm=float(np.linalg.norm(model.astype(np.float64) - state.model)),
        note="; ".join(filter(None, [note, hidden, *(f"{n}: {why}" for n, why in failed.items())])),
    )
    append_event(run.folder / ROUNDS, event)
    # 10 Keep a checkpoint.
    min_delta = plan.stop.min_delta
    run.keep(state.record_round(total, replies, model, run.strategy.state(), min_delta))
    # 11 Stop?
    return stop_reason(plan.stop, run.state.better, number, plan.rounds)


def ask_newcomers(run: RunState, selected: list[str], deadline: float) -> Replies:
    """Ask the chosen hospitals that missed the run's beginning for their statistics.

    From then on their rows belong to the objective. The scaling stays that of the first round.

    Args:
        run: The run; the hospitals that answer are noted in its state.
        selected: The round's hospitals.
        deadline: Seconds.

    Returns:
        Who did not answer, and so cannot take part in the round.
    """
    missing = [name for name in selected if name not in run.state.history.seen]
    if not missing:
        return Replies()
    tasks = dict.fromkeys(missing, StatisticsTask(features=run.sizes.features))
    replies = run.ask(Question.STATISTICS, tasks, deadline=deadline, needed=0)
    found = replies.decoded(Question.STATISTICS, run.sizes, run.check)
    if found:
        # Kept, for the strategy's common array depends on who has been seen.
        run.keep(run.state.joined(list(found)))
    replies.answers.clear()
    return replies


def tasks_of(
    run: RunState, hospitals: list[str], about: About, multiplied: float
) -> dict[str, TrainTask]:
    """The round's task of each hospital.

    Args:
        run: The run.
        hospitals: Those that are asked.
        about: The round.
        multiplied: The factor of the learning rate.
    """
    state, common = run.state, run.strategy.common(about)
    return {
        name: TrainTask(
            round=about.round,
            counted=state.history.last_round.get(name, 0),
            model=state.model,
            common=common,
            scaler=state.scaler,
            factor=multiplied,
        )
        for name in hospitals
    }


def check_answers(run: RunState, replies: Replies) -> dict[str, Vector]:
    """The sound answers by hospital; the others are put to the failed ones with the reason.

    Args:
        run: The run.
        replies: What came back.
    """
    found = replies.decoded(Question.TRAIN, run.sizes, run.check)
    norms = {
        name: float(np.linalg.norm(vector["update"]) / vector.number("weight"))
        for name, vector in found.items()
    }
    bound = run.study.federation.max_update_norm
    if bound is None and len(norms) >= 3:
        bound = NORM_FACTOR * float(np.median(list(norms.values())))
    for name, norm in norms.items():
        if bound and norm > bound:
            del found[name]
            replies.failed[name] = (
                f"its answer was refused: its update has norm {norm:.3g}, the bound is {bound:.3g}"
            )
    return found


def check_total(run: RunState, total: Total) -> None:
    """Discard an opened sum as a whole if it is beyond the study's bound: no sender is visible.

    Raises:
        FederationError: It is.
    """
    bound, norm = run.study.federation.max_update_norm, np.linalg.norm(mean_update(total))
    if bound is not None and norm > bound:
        raise FederationError(
            f"the mean update has norm {norm:.3g}, beyond federation.max_update_norm {bound:g}."
        )


def weighed(run: RunState, answers: Mapping[str, Vector]) -> Mapping[str, Vector]:
    """The answers with the weights of the study, where those are not the hospitals' own.

    A cap holds among the hospitals that answered. What the strategy adds up over rounds has the
    weights of all hospitals of the run, which do not change.

    Args:
        run: The run.
        answers: By hospital, each with its own weight.
    """
    if run.study.federation.weighting.kind != "capped":
        return answers
    strategy, parameters = run.strategy, run.sizes.parameters
    now, lasting = run.weights(list(answers)), run.weights(run.config.hospitals)
    found = {}
    for name, vector in answers.items():
        own = run.own_weight(name)
        factors = dict.fromkeys(
            ("update", "weight", *strategy.segments(parameters)), now[name] / own
        )
        factors |= dict.fromkeys(strategy.lasting, lasting[name] / own)
        found[name] = vector.scaled(factors)
    return found


def too_few(
    number: int, replied: list[str], failed: Mapping[str, str], needed: int
) -> FederationError:
    """The error of a round that too few hospitals answered."""
    why = "; ".join(f"{name}: {reason}" for name, reason in sorted(failed.items())) or "no reason"
    return FederationError(
        f"round {number}: {len(replied)} of at least {needed} hospitals answered "
        f"({', '.join(replied) or 'none'}; {why}). See to those hospitals and run the step again: "
        "it goes on at this round."
    )
