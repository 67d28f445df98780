"""The server of one run: statistics, rounds, closing; its ServerApp is in ``server_app.py``."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tasks.errors import FederationError
from tasks.federation.messages import Statistics
from tasks.federation.server import checkpoint
from tasks.federation.server.checkpoint import Progress
from tasks.federation.server.final_model import close
from tasks.federation.server.outcome import Outcome
from tasks.federation.server.round import Training, run_round
from tasks.federation.server.selection import Seen
from tasks.federation.server.transport import Answers, Link, wait_until_ready
from tasks.federation.server.weighting import weigh
from tasks.federation.strategies import make_strategy
from tasks.federation.wire import Wire, size_of
from tasks.files import write_atomically
from tasks.model.scaling import Moments, Scaler
from tasks.study import Study
from tasks.telemetry.round_event import read_events

log = logging.getLogger(__name__)
JOINING = 1.0
"""Seconds between two questions to a hospital that has yet to join the run."""
CLOSING = 20.0
"""Seconds that the closing message has at least, however little of the run's deadline is left."""


class ServerConfig(BaseModel):
    """What the server is told: no hospital's path.

    Attributes:
        study: The run's frozen study.
        hospitals: Those of the run.
        nodes: Node id by hospital.
        fingerprint: Of the study and the tables' versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: Study
    hospitals: list[str]
    nodes: dict[str, int]
    fingerprint: str


def train_federated(config: ServerConfig, link: Link, folder: Path) -> Outcome:
    """Train from the first round, or from the one after the last checkpoint, to the end.

    Args:
        config: What the server is told.
        link: The way to the hospitals.
        folder: Where events and checkpoint are kept.

    Raises:
        FederationError: Too few hospitals came or answered; the checkpoint is kept.
    """
    plan = config.study.federation
    began = time.monotonic()
    end = began + plan.deadlines.run
    # A hospital without a registered key cannot come, so nobody waits for it.
    able = [name for name in config.hospitals if name in config.nodes]
    there = wait_until_ready(link, able, plan.min_hospitals, plan.deadlines.ready)
    if len(there) < plan.min_hospitals:
        absent = sorted(set(config.hospitals) - there)
        why = "; ".join(f"{h}: {reason}" for h, reason in sorted(link.gone().items()))
        raise FederationError(
            f"{len(there)} of at least {plan.min_hospitals} hospitals joined; absent: "
            f"{', '.join(absent)}{f' ({why})' if why else ''}. See files/federated/*.log."
        )
    progress = checkpoint.load(folder / "checkpoint.npz", config.fingerprint)
    resumed = progress is not None
    if progress is None:
        progress = _start(config, link, began + plan.deadlines.ready)
    _forget_events_after(folder / "rounds.jsonl", progress.round)
    shares = weigh(plan.weighting, {h: progress.seen.rows.get(h, 1) for h in config.hospitals})
    strategy = make_strategy(plan, shares)
    strategy.restore(progress.strategy)
    training = Training(
        config.study,
        config.hospitals,
        link,
        strategy,
        progress,
        folder,
        config.fingerprint,
        {},
    )
    note = f"resumed after round {progress.round}" if resumed else ""
    stopped = _rounds(training, note, end)
    # A run that its deadline has ended still has a result to choose.
    return close(training, stopped, max(CLOSING, end - time.monotonic()))


def _rounds(training: Training, note: str, end: float) -> str:
    """Rounds until one says to stop; a failed one is tried once more."""
    plan = training.study.federation
    if training.progress.round >= plan.rounds:
        return f"all {plan.rounds} rounds are done"
    failed = False
    while True:
        left = end - time.monotonic()
        if left <= 0:
            if training.progress.round:
                return f"the run's deadline of {plan.deadlines.run:g} s"
            raise FederationError("the run's deadline passed before the first round ended.")
        try:
            reason = run_round(training, note, left)
        except FederationError as error:
            if failed:
                raise
            failed, note = True, f"tried again: {error}"
            log.warning("%s", error)
            continue
        failed, note = False, ""
        if reason is not None:
            return reason


def _start(config: ServerConfig, link: Link, ready: float) -> Progress:
    """Federated standardisation, and the first model."""
    study, plan = config.study, config.study.federation
    features = study.features
    answers = _ask_statistics(config, link, ready)
    found = answers.decoded(lambda wire: Statistics.decode(wire, len(features)), "statistics were")
    if len(found) < plan.min_hospitals:
        why = "; ".join(f"{n}: {reason}" for n, reason in sorted(answers.lost.items()))
        raise FederationError(
            f"{len(found)} of at least {plan.min_hospitals} hospitals gave their statistics "
            f"({why}). See to those hospitals and run the step again."
        )
    for name, reason in sorted(answers.lost.items()):
        log.warning("statistics of %s: %s", name, reason)
    none = Moments(*np.zeros((3, len(features))))
    scaler = Scaler.of(sum((each.moments for each in found.values()), none), features)
    rows = {name: each.rows for name, each in found.items()}
    positives = sum(each.positives for each in found.values())
    model = _first_model(study, positives / sum(rows.values()))
    return Progress(
        round=0,
        model=model,
        scaler=scaler,
        best_model=model,
        seen=Seen(rows=rows),
        validation_rows={name: each.validation_rows for name, each in found.items()},
        bytes_up=answers.bytes_up,
        bytes_down=answers.bytes_down,
    )


def _ask_statistics(config: ServerConfig, link: Link, ready: float) -> Answers:
    """Ask until all hospitals have joined the run, or the deadline to be ready has passed.

    A standing SuperNode is connected long before its hospital lets this run use its table, which
    may be a moment after the run is handed over: going on without it would lose it a round.
    """
    plan, found = config.study.federation, Answers()
    task: Wire = {"features": len(config.study.features)}
    waiting, told = config.hospitals, list[str]()
    while True:
        answers = link.ask(
            "statistics",
            dict.fromkeys(waiting, task),
            number=0,
            deadline=plan.deadlines.round,
            needed=plan.min_hospitals,
        )
        waiting = sorted(answers.later)
        # To ask again is to wait: a run's payload does not depend on when its hospitals joined.
        answers.bytes_down -= len(waiting) * size_of(task)
        found.add(answers)
        if not waiting or time.monotonic() > ready:
            return found
        if waiting != told:
            log.warning("waiting for %s to join the run", ", ".join(waiting))
        told = waiting
        time.sleep(JOINING)


def _first_model(study: Study, prior: float) -> NDArray[np.float32]:
    from tasks.model.network import build, flatten

    known = prior if 0 < prior < 1 and math.isfinite(prior) else None
    return flatten(build(study.model, len(study.features), study.seed, prior=known))


def _forget_events_after(path: Path, number: int) -> None:
    """An event is told before its checkpoint is kept: a crash between tells it twice otherwise."""
    events = read_events(path)
    kept = [event for event in events if event.round <= number]
    text = "".join(event.model_dump_json() + "\n" for event in kept)
    if path.exists() or text:
        write_atomically(path, text.encode())
