"""A hospital's side: rows that stay here, and the answers to the server's questions.

No torch or Flower at import: the warm process (``flower/warm_executor.py``) loads the rows before
it forks, and a ClientApp that is forked for one message finds them in memory.
"""

from __future__ import annotations

import hashlib
import logging
import os
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError, ExitCode, FedriskError, NotApproved
from tasks.federation.hospital.checks import check_round, check_scaler, scaler_digest
from tasks.federation.hospital.config import HospitalConfig
from tasks.federation.hospital.state import HospitalState, Remembered
from tasks.federation.hospital.training_rows import TrainingRows, read_training_rows
from tasks.federation.messages import (
    CANDIDATES,
    FORMS,
    CalibrateTask,
    EvaluateTask,
    Evaluation,
    Question,
    Refusal,
    Sizes,
    StatisticsTask,
    TrainTask,
)
from tasks.federation.strategies import LocalTraining, make_strategy
from tasks.federation.update.pipeline import pipeline_of
from tasks.federation.update.stage import About, State
from tasks.federation.vector import Vector
from tasks.federation.wire import Wire, digest_of
from tasks.model.forward import logits, parameter_count
from tasks.model.histogram import ScoreHistogram
from tasks.model.intercept import fit_intercept, one_step_shift
from tasks.model.metrics import log_loss
from tasks.model.scaling import Moments, Scaler
from tasks.study import Study

log = logging.getLogger(__name__)


class Hospital:
    """Answers questions from its own rows, each once."""

    def __init__(self, config: HospitalConfig, rows: TrainingRows) -> None:
        """Hold the rows.

        Args:
            config: What the hospital's process is configured with.
            rows: Its rows.
        """
        self.config, self.rows = config, rows
        self._study, self._least = config.study, config.study.evaluation.min_count
        plan, features = config.study.federation, len(config.study.features)
        self._strategy = make_strategy(plan)
        self._pipeline = pipeline_of(plan, self._strategy.needs_each)
        parameters = parameter_count(config.study.model, features)
        self._sizes = Sizes(parameters, features, self._strategy.segments(parameters))
        self._state = HospitalState(config.lake, config.state)

    def answer(self, question: str, wire: Mapping[str, Any]) -> Wire:
        """Answer a question; a failure is an answer too.

        The same task again, as a server that resumes sends it, gets the same bytes again; another
        task for a question and round that is answered is refused.

        Args:
            question: A ``Question``'s value.
            wire: The task's fields.
        """

        def work() -> Wire:
            self._check_ends()
            asked = Question(question)
            task = FORMS[asked].task.decode(wire, self._sizes)
            digest, known = digest_of(wire), self._state.find(asked, task.round)
            if known is None:
                return self._new_answer(asked, task, digest)
            if known.task != digest:
                raise DataError(
                    f"{question} of round {task.round} is answered, and the server now asks "
                    "something else. Start a new run."
                )
            return known.answer

        return guarded(work)

    def _check_ends(self) -> None:
        ends = self.config.ends
        if ends is not None and datetime.now(UTC) > ends:
            raise NotApproved(
                f"hospital {self.config.hospital} let this run use its table until "
                f"{ends:%Y-%m-%d %H:%M} UTC. Start a new run."
            )

    def _new_answer(self, question: Question, task: Any, digest: str) -> Wire:
        rounds = self._state.rounds()
        newest = self._state.find(Question.TRAIN, rounds[-1]) if rounds else None
        scaler = newest.scaler if newest else ""
        if not isinstance(task, StatisticsTask):
            if not scaler:
                check_scaler(task.scaler, self._study, self.rows.x)
            elif scaler != scaler_digest(task.scaler):
                raise DataError("the server's scaling is another than in the first round.")
            scaler = scaler_digest(task.scaler)
        state: State = {}
        if isinstance(task, TrainTask):
            check_round(task, self._study, rounds)
            if newest and task.counted == rounds[-1]:
                state = newest.state
            else:
                state = self._state.after(task.counted)
        self._pipeline.restore(_below("stage/", state))
        answers: dict[Question, Callable[[Any, State], tuple[dict[str, Any], State]]] = {
            Question.STATISTICS: self._statistics,
            Question.TRAIN: self._train,
            Question.EVALUATE: self._evaluate,
            Question.CALIBRATE: self._calibrate,
        }
        values, own = answers[question](task, _below("strategy/", state))
        vector = Vector.of(FORMS[question].answer.layout(self._sizes), **values)
        if question is Question.TRAIN:
            own = self._strategy.remembered(vector, own)
        about = About(question, task.round, self.config.hospital)
        answer = self._pipeline.send(vector, about).encode()
        state = {f"strategy/{name}": array for name, array in own.items()}
        state |= {f"stage/{name}": array for name, array in self._pipeline.state().items()}
        kept = Remembered(digest, scaler, answer, state)
        self._state.keep(question, task.round, kept)
        if isinstance(task, TrainTask):
            # No server goes back behind an answer that counted.
            self._state.forget([number for number in rounds if number < task.counted])
        return answer

    def _statistics(self, task: StatisticsTask, own: State) -> tuple[dict[str, Any], State]:
        if task.features != self._sizes.features:
            raise DataError(
                f"the server's study has {task.features} features, this hospital's "
                f"{self._sizes.features}."
            )
        y, least = self.rows.y, self._least
        rows, positives = len(y), int(y.sum())
        # Fewer than the least count is a mark, and no 0: these rows stay out of the quotient.
        known = min(positives, rows - positives) >= least
        values = {
            "rows": rows,
            "labelled": rows if known else 0,
            "positives": positives if known else 0,
            "moments": _suppressed(Moments.of(self.rows.x), self._study, least).to_array(),
        }
        return values, own

    def _train(self, task: TrainTask, own: State) -> tuple[dict[str, Any], State]:
        from tasks.model.network import build, flatten, unflatten
        from tasks.model.training import train_epochs

        study, plan = self._study, self._study.federation
        scores = self._scores(task.model, task.scaler)
        seed = seed_of(study.seed, task.round, self.config.hospital)
        module = build(study.model, self._sizes.features, seed)
        unflatten(module, task.model)
        rate = plan.learning_rate * task.factor
        correction = self._strategy.correction(task.common, own)
        result = train_epochs(
            module,
            task.scaler.transform(self.rows.x),
            self.rows.y,
            model=study.model,
            epochs=plan.local_epochs,
            batch_size=plan.batch_size,
            learning_rate=rate,
            momentum=plan.momentum,
            seed=seed,
            proximal_mu=self._strategy.proximal_mu,
            correction=correction,
        )
        move = flatten(module).astype(np.float64) - task.model
        weight = 1.0 if plan.weighting.kind == "equal" else float(len(self.rows.y))
        local = LocalTraining(move, result.steps, weight, rate, correction)
        y, rows = self.rows.validation_y, len(self.rows.y)
        values = {
            **self._strategy.contribution(local, own),
            "weight": weight,
            "rows": rows,
            "train_loss": result.loss * rows,
            "validation_rows": len(y),
            "validation_loss": (log_loss(y, scores) or 0.0) * len(y),
            "histogram": ScoreHistogram.of(y, scores, self._least).counts,
        }
        return values, own

    def _evaluate(self, task: EvaluateTask, own: State) -> tuple[dict[str, Any], State]:
        y = self.rows.validation_y
        enough = min(y.sum(), len(y) - y.sum()) >= self._least
        shifts = enough and self._study.federation.intercept
        found = np.zeros((5, len(task.models)))
        for place, model in enumerate(task.models):
            scores = self._scores(model, task.scaler)
            found[0, place] = (log_loss(y, scores) or 0.0) * len(y)
            if shifts:
                s, w = one_step_shift(y, scores)
                found[1:, place] = w, w * s, w * s**2, w**2
        found = np.pad(found, ((0, 0), (0, CANDIDATES - len(task.models))))
        values = dict(zip(("losses", *Evaluation.SUMS), found, strict=True))
        return {**values, "validation_rows": len(y), "hospitals": float(shifts)}, own

    def _calibrate(self, task: CalibrateTask, own: State) -> tuple[dict[str, Any], State]:
        if task.variance < 0:
            raise DataError(f"the server gives a variance between hospitals of {task.variance:g}.")
        y, scores = self.rows.validation_y, self._scores(task.model, task.scaler)
        shift = fit_intercept(y, scores, task.variance) if self._study.federation.intercept else 0.0
        counts = ScoreHistogram.of(y, scores + shift, self._least).counts
        return {"histogram": counts, "intercept": shift}, own

    def _scores(self, model: NDArray[np.float32], scaler: Scaler) -> NDArray[np.float64]:
        z = scaler.transform(self.rows.validation_x)
        return logits(self._study.model, self._sizes.features, model, z)


def seed_of(seed: int, number: int, hospital: str) -> int:
    """The seed of one hospital's training in one round: the same in every run, unlike all others.

    Args:
        seed: The study's.
        number: The round.
        hospital: The hospital's name.
    """
    digest = hashlib.sha256(f"{seed}/{number}/{hospital}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def _below(prefix: str, state: State) -> State:
    return {n.removeprefix(prefix): a for n, a in state.items() if n.startswith(prefix)}


def guarded(work: Callable[[], Wire]) -> Wire:
    """Do a hospital's work; of a failure, only what carries no row's value leaves.

    The messages of our own errors are written for that. Of any other error the type and the place
    in the code leave, and the whole of it stays in the hospital's own log.
    """
    try:
        return work()
    except FedriskError as error:
        log.error("%s", error)
        later = error.exit_code == ExitCode.TRANSIENT
        return Refusal(f"{type(error).__name__}: {error}", later).encode()
    except Exception as error:
        log.exception("the ClientApp failed")
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        return Refusal(f"{reason} (the hospital's own log has the rest)").encode()


def _suppressed(moments: Moments, study: Study, least: int) -> Moments:
    """Sums without groups of fewer than ``least`` patients.

    A numeric feature known of so few gives no sums; so few ones (or zeros) of a binary feature
    count as none. The scaling hardly moves: such a feature has nearly no spread.
    """
    count, total, square = (array.copy() for array in moments.to_array())
    numeric = np.array([feature.kind == "numeric" for feature in study.features])
    few = numeric & (count > 0) & (count < least)
    count[few] = total[few] = square[few] = 0.0
    rare = ~numeric & (total > 0) & (total < least)
    total[rare] = square[rare] = 0.0
    common = ~numeric & (count > total) & (count - total < least)
    total[common] = square[common] = count[common]
    return Moments(count, total, square)


_ready: dict[str, Callable[[str, Mapping[str, Any]], Wire]] = {}


def prepare(path: Path, rows: TrainingRows | None = None, refused: Wire | None = None) -> None:
    """Keep a hospital ready in this process, so that a fork of it need not read anything.

    Args:
        path: The hospital's configuration file.
        rows: Its rows, if they are read already.
        refused: What to answer where the rows cannot be read.
    """
    key = os.fspath(path)
    if refused is not None:
        _ready[key] = lambda *_: refused
        return
    config = HospitalConfig.model_validate_json(path.read_bytes())
    _ready[key] = Hospital(config, rows or read_training_rows(config)).answer


def answer(path: str, question: str, wire: Mapping[str, Any]) -> Wire:
    """Answer a question in a process that may or may not be prepared.

    Args:
        path: The hospital's configuration file.
        question: A ``Question``'s value.
        wire: The question's fields.
    """

    def work() -> Wire:
        if path not in _ready:
            prepare(Path(path))
        return _ready[path](question, wire)

    return guarded(work)
