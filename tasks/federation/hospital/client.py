"""A hospital's side: rows that stay here, and the answers to the server's three questions.

No torch or Flower at import: the warm process (``executor.py``) loads the rows before it forks,
and a ClientApp that is forked for one message finds them in memory.
"""

from __future__ import annotations

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
from tasks.federation.hospital.config import HospitalConfig
from tasks.federation.hospital.training_rows import TrainingRows, read_training_rows
from tasks.federation.messages import Closing, ClosingTask, Refusal, Statistics, TrainTask, Update
from tasks.federation.wire import Wire
from tasks.model.forward import logits, parameter_count
from tasks.model.histogram import ScoreHistogram
from tasks.model.intercept import fit_intercept
from tasks.model.metrics import log_loss
from tasks.model.scaling import Moments, Scaler
from tasks.study import Study

log = logging.getLogger(__name__)


class Hospital:
    """Answers questions from its own rows."""

    def __init__(self, config: HospitalConfig, rows: TrainingRows) -> None:
        """Hold the rows.

        Args:
            config: What the hospital is told.
            rows: Its rows.
        """
        self.config, self.rows = config, rows
        self._least = config.study.evaluation.min_count
        self._features = len(config.study.features)
        self._parameters = parameter_count(config.study.model, self._features)

    def answer(self, question: str, wire: Mapping[str, Any]) -> Wire:
        """Answer a question; a failure is an answer too.

        Args:
            question: ``statistics``, ``train`` or ``close``.
            wire: The question's fields.
        """
        answers: dict[str, Callable[[Mapping[str, Any]], Wire]] = {
            "statistics": self._statistics,
            "train": self._train,
            "close": self._close,
        }

        def work() -> Wire:
            self._check_ends()
            return answers[question](wire)

        return guarded(work)

    def _check_ends(self) -> None:
        ends = self.config.ends
        if ends is not None and datetime.now(UTC) > ends:
            raise NotApproved(
                f"hospital {self.config.hospital} let this run use its table until "
                f"{ends:%Y-%m-%d %H:%M} UTC. Start a new run."
            )

    def _statistics(self, wire: Mapping[str, Any]) -> Wire:
        del wire
        y, least = self.rows.y, self._least
        positives = int(y.sum())
        moments = _suppressed(Moments.of(self.rows.x), self.config.study, least)
        kept = positives if positives >= least else 0
        return Statistics(len(y), kept, len(self.rows.validation_y), moments).encode()

    def _train(self, wire: Mapping[str, Any]) -> Wire:
        from tasks.model.network import build, flatten, unflatten
        from tasks.model.training import train_epochs

        study, plan = self.config.study, self.config.study.federation
        task = TrainTask.decode(wire, self._parameters, self._features)
        if not 1 <= task.round <= plan.rounds:
            raise DataError(
                f"the server asks for round {task.round}; the study that this hospital joined has "
                f"{plan.rounds}."
            )
        scores = self._scores(task.model, task.scaler)
        module = build(study.model, self._features, task.seed)
        unflatten(module, task.model)
        result = train_epochs(
            module,
            task.scaler.transform(self.rows.x),
            self.rows.y,
            model=study.model,
            epochs=plan.local_epochs,
            batch_size=plan.batch_size,
            learning_rate=task.learning_rate,
            momentum=plan.momentum,
            seed=task.seed,
            proximal_mu=task.proximal_mu,
            correction=task.correction,
        )
        y = self.rows.validation_y
        return Update(
            rows=len(self.rows.y),
            steps=result.steps,
            model=flatten(module),
            train_loss=result.loss,
            validation_rows=len(y),
            validation_loss=log_loss(y, scores) or 0.0,
            histogram=ScoreHistogram.of(y, scores, self._least),
        ).encode()

    def _close(self, wire: Mapping[str, Any]) -> Wire:
        task = ClosingTask.decode(wire, self._parameters, self._features)
        y = self.rows.validation_y
        losses, intercepts, histograms = [], [], []
        for model in task.models:
            scores = self._scores(model, task.scaler)
            shift = fit_intercept(y, scores) if self.config.study.federation.intercept else 0.0
            losses.append(log_loss(y, scores) or 0.0)
            intercepts.append(shift)
            histograms.append(ScoreHistogram.of(y, scores + shift, self._least))
        return Closing(len(y), tuple(losses), tuple(intercepts), tuple(histograms)).encode()

    def _scores(self, model: NDArray[np.float32], scaler: Scaler) -> NDArray[np.float64]:
        z = scaler.transform(self.rows.validation_x)
        return logits(self.config.study.model, self._features, model, z)


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
        question: ``statistics``, ``train`` or ``close``.
        wire: The question's fields.
    """

    def work() -> Wire:
        if path not in _ready:
            prepare(Path(path))
        return _ready[path](question, wire)

    return guarded(work)
