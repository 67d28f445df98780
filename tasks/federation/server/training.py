"""The server of one run: statistics, rounds, final model; its ServerApp is in ``flower/``."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from tasks.errors import FederationError
from tasks.federation.messages import Question, Sizes, Statistics, StatisticsTask
from tasks.federation.run_files import CHECKPOINT, ROUNDS
from tasks.federation.server import checkpoint
from tasks.federation.server.final_model import finish
from tasks.federation.server.outcome import Outcome
from tasks.federation.server.round import run_round
from tasks.federation.server.run_state import RunState, ServerConfig
from tasks.federation.server.state import ServerState
from tasks.federation.server.transport import Replies, Transport, wait_until_ready
from tasks.federation.strategies import make_strategy
from tasks.federation.update.pipeline import pipeline_of
from tasks.federation.update.stage import About
from tasks.federation.wire import Floats, size_of
from tasks.files import write_atomically
from tasks.model.forward import parameter_count
from tasks.model.scaling import Scaler
from tasks.study import Study
from tasks.telemetry.round_event import read_events

log = logging.getLogger(__name__)
ASK_AGAIN = 1.0
"""Seconds between two questions to a hospital that has yet to join the run."""
FINISH = 20.0
"""Seconds that a final question has at least, however little of the run's deadline is left."""


def train_federated(config: ServerConfig, transport: Transport, folder: Path) -> Outcome:
    """Train from the first round, or from the one after the last checkpoint, to the end.

    Args:
        config: The server's configuration.
        transport: The way to the hospitals.
        folder: Where events and checkpoint are kept.

    Raises:
        FederationError: Too few hospitals came or answered; the checkpoint is kept.
    """
    plan = config.study.federation
    began = time.monotonic()
    end = began + plan.deadlines.run
    # A hospital without a registered key cannot come, so it is not waited for.
    able = [name for name in config.hospitals if name in config.nodes]
    there = wait_until_ready(transport, able, plan.min_hospitals, plan.deadlines.ready)
    if len(there) < plan.min_hospitals:
        absent = sorted(set(config.hospitals) - there)
        why = "; ".join(f"{h}: {reason}" for h, reason in sorted(transport.gone().items()))
        raise FederationError(
            f"{len(there)} of at least {plan.min_hospitals} hospitals joined; absent: "
            f"{', '.join(absent)}{f' ({why})' if why else ''}. See files/federated/*.log."
        )
    state = checkpoint.load(folder / CHECKPOINT, config.fingerprint)
    strategy = make_strategy(plan)
    features = len(config.study.features)
    parameters = parameter_count(config.study.model, features)
    run = RunState(
        config,
        transport,
        strategy,
        pipeline_of(plan, strategy.needs_each),
        Sizes(parameters, features, strategy.segments(parameters)),
        folder,
        state or _nothing(parameters, features),
    )
    if state is None:
        _start(run, began + plan.deadlines.ready)
    strategy.restore(run.state.strategy)
    _drop_events_after(folder / ROUNDS, run.state.round)
    note = "" if state is None else f"resumed after round {state.round}"
    stopped = run.state.stopped or _rounds(run, note, end)
    # A run that its deadline has ended still has a result to choose.
    return finish(run, stopped, max(FINISH, end - time.monotonic()))


def _rounds(run: RunState, note: str, end: float) -> str:
    """Rounds until one says to stop; a failed one is tried once more."""
    plan = run.study.federation
    failed = False
    while True:
        left = end - time.monotonic()
        if left <= 0:
            if run.state.round:
                return f"the run's deadline of {plan.deadlines.run:g} s"
            raise FederationError("the run's deadline passed before the first round ended.")
        if run.state.round >= plan.rounds:
            return f"all {plan.rounds} rounds are done"
        try:
            reason = run_round(run, note, left)
        except FederationError as error:
            if failed:
                raise
            failed, note = True, f"tried again: {error}"
            log.warning("%s", error)
            continue
        failed, note = False, ""
        if reason is not None:
            return reason


def _start(run: RunState, ready: float) -> None:
    """Federated standardisation, and the first model."""
    study, plan = run.study, run.study.federation
    replies = _ask_statistics(run, ready)
    found = replies.decoded(Question.STATISTICS, run.sizes, run.check)
    if len(found) < plan.min_hospitals:
        why = "; ".join(f"{n}: {reason}" for n, reason in sorted(replies.failed.items()))
        raise FederationError(
            f"{len(found)} of at least {plan.min_hospitals} hospitals gave their statistics "
            f"({why}). See to those hospitals and run the step again."
        )
    for name, reason in sorted(replies.failed.items()):
        log.warning("statistics of %s: %s", name, reason)
    total = Statistics(run.pipeline.receive(found, About(Question.STATISTICS, 0)).vector)
    model = _first_model(study, total.prevalence)
    scaler = Scaler.of(total.moments, study.features)
    state = ServerState(round=0, model=model, scaler=scaler, best_model=model)
    run.keep(state.received(replies).joined(list(found)))


def _ask_statistics(run: RunState, ready: float) -> Replies:
    """Ask until all hospitals have joined the run, or the deadline to be ready has passed.

    A standing SuperNode is connected long before its hospital lets this run use its table, which
    may be a moment after the run is submitted: going on without it would lose it a round.
    """
    task, found = StatisticsTask(features=run.sizes.features), Replies()
    waiting, reported = run.config.hospitals, list[str]()
    while True:
        replies = run.ask(
            Question.STATISTICS,
            dict.fromkeys(waiting, task),
            deadline=run.study.federation.deadlines.round,
        )
        waiting = sorted(replies.retryable)
        # To ask again is to wait: a run's payload does not depend on when its hospitals joined.
        replies.bytes_down -= len(waiting) * size_of(task.encode())
        found.merge(replies)
        if not waiting or time.monotonic() > ready:
            return found
        if waiting != reported:
            log.warning("waiting for %s to join the run", ", ".join(waiting))
        reported = waiting
        time.sleep(ASK_AGAIN)


def _nothing(parameters: int, features: int) -> ServerState:
    zero = np.zeros(parameters, np.float32)
    return ServerState(0, zero, Scaler(np.zeros(features), np.ones(features)), zero)


def _first_model(study: Study, prevalence: float | None) -> Floats:
    from tasks.model.network import build, flatten

    known = prevalence if prevalence and prevalence < 1 else None
    return flatten(build(study.model, len(study.features), study.seed, prior=known))


def _drop_events_after(path: Path, number: int) -> None:
    """An event comes before its checkpoint: after a crash between them it would stand twice."""
    events = read_events(path)
    kept = [event for event in events if event.round <= number]
    text = "".join(event.model_dump_json() + "\n" for event in kept)
    if path.exists() or text:
        write_atomically(path, text.encode())
