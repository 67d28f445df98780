"""What leaves a hospital, and what comes to it: every message, both ends, in this one place.

A hospital sends ``Statistics`` (sums), ``Update`` (parameters, losses, a suppressed histogram),
``Closing`` (one intercept and histogram a model), or a ``Refusal`` (an error without a row's
value), and nothing else. Each message is one record with one flat array as bytes, for Flower makes
an HTTP call of every array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.errors import DataError
from tasks.federation.wire import Floats, Wire, _number, _packed, _unpacked, _whole
from tasks.model.histogram import ScoreHistogram
from tasks.model.scaling import Moments, Scaler


@dataclass(frozen=True)
class Statistics:
    """Sums over one hospital's training rows, before the first round.

    Attributes:
        rows: Training rows.
        positives: Of label 1; 0 where there are fewer than the study lets leave.
        validation_rows: Validation rows.
        moments: Sums a feature; groups below the least count are left out.
    """

    rows: int
    positives: int
    validation_rows: int
    moments: Moments

    def encode(self) -> Wire:
        """The message as it travels."""
        return {
            "rows": self.rows,
            "positives": self.positives,
            "validation_rows": self.validation_rows,
            "moments": _packed(self.moments.to_array(), np.float64),
        }

    @classmethod
    def decode(cls, wire: Mapping[str, Any], features: int) -> Statistics:
        """Read and check what ``encode`` made.

        Raises:
            DataError: A field is absent or not of its form.
        """
        sums = _unpacked(wire, "moments", np.float64, 3 * features)
        rows = _whole(wire, "rows")
        if rows == 0:
            raise DataError("the hospital has no training rows.")
        return cls(
            rows,
            min(_whole(wire, "positives"), rows),
            _whole(wire, "validation_rows"),
            Moments.from_array(sums.reshape(3, features)),
        )


@dataclass(frozen=True)
class TrainTask:
    """A round's plan for one hospital.

    Attributes:
        round: Number of the round, from 1.
        model: Parameters to start from, shape (p,).
        correction: SCAFFOLD's c - c_i, shape (p,), or None.
        scaler: The federation's standardisation.
        learning_rate: Step size in this round.
        proximal_mu: FedProx's mu, 0 for none.
        seed: Of batches and dropout, for this round and hospital alone.
    """

    round: int
    model: Floats
    correction: Floats | None
    scaler: Scaler
    learning_rate: float
    proximal_mu: float
    seed: int

    def encode(self) -> Wire:
        """The message as it travels: model and correction are one array."""
        parts = [self.model] if self.correction is None else [self.model, self.correction]
        return {
            "round": self.round,
            "model": _packed(np.concatenate(parts), np.float32),
            "corrected": self.correction is not None,
            "scaler": _packed(np.concatenate([self.scaler.mean, self.scaler.std]), np.float64),
            "learning_rate": self.learning_rate,
            "proximal_mu": self.proximal_mu,
            "seed": self.seed,
        }

    @classmethod
    def decode(cls, wire: Mapping[str, Any], parameters: int, features: int) -> TrainTask:
        """Read and check what ``encode`` made.

        Raises:
            DataError: A field is absent or not of its form.
        """
        corrected = bool(wire.get("corrected"))
        flat = _unpacked(wire, "model", np.float32, parameters * (2 if corrected else 1))
        return cls(
            round=_whole(wire, "round"),
            model=flat[:parameters],
            correction=flat[parameters:] if corrected else None,
            scaler=_scaler(wire, features),
            learning_rate=_number(wire, "learning_rate"),
            proximal_mu=_number(wire, "proximal_mu"),
            seed=_whole(wire, "seed"),
        )


@dataclass(frozen=True)
class Update:
    """What a hospital's training gave, and how the incoming model did on its validation rows.

    Attributes:
        rows: Training rows.
        steps: Local steps taken.
        model: Trained parameters, shape (p,).
        train_loss: Mean training loss of the last local epoch.
        validation_rows: Validation rows; 0 where there are none.
        validation_loss: Mean loss of the incoming model on them; 0 where there are none.
        histogram: Scores of the incoming model on them, groups below the least count merged.
    """

    rows: int
    steps: int
    model: Floats
    train_loss: float
    validation_rows: int
    validation_loss: float
    histogram: ScoreHistogram

    def encode(self) -> Wire:
        """The message as it travels."""
        return {
            "rows": self.rows,
            "steps": self.steps,
            "model": _packed(self.model, np.float32),
            "train_loss": self.train_loss,
            "validation_rows": self.validation_rows,
            "validation_loss": self.validation_loss,
            "histogram": _packed(self.histogram.to_array(), np.int32),
        }

    @classmethod
    def decode(cls, wire: Mapping[str, Any], parameters: int) -> Update:
        """Read and check what ``encode`` made.

        Raises:
            DataError: A field is absent, not finite or not of its form.
        """
        rows, steps = _whole(wire, "rows"), _whole(wire, "steps")
        if rows == 0 or steps == 0:
            raise DataError(f"the update is of {rows} rows and {steps} steps.")
        return cls(
            rows=rows,
            steps=steps,
            model=_unpacked(wire, "model", np.float32, parameters),
            train_loss=_number(wire, "train_loss"),
            validation_rows=_whole(wire, "validation_rows"),
            validation_loss=_number(wire, "validation_loss"),
            histogram=_histogram(wire, "histogram"),
        )


@dataclass(frozen=True)
class ClosingTask:
    """The candidates for the result: the best model so far, and the last one.

    Attributes:
        models: Shape (k, p).
        scaler: The federation's standardisation.
    """

    models: Floats
    scaler: Scaler

    def encode(self) -> Wire:
        """The message as it travels."""
        return {
            "count": len(self.models),
            "model": _packed(self.models, np.float32),
            "scaler": _packed(np.concatenate([self.scaler.mean, self.scaler.std]), np.float64),
        }

    @classmethod
    def decode(cls, wire: Mapping[str, Any], parameters: int, features: int) -> ClosingTask:
        """Read and check what ``encode`` made.

        Raises:
            DataError: A field is absent or not of its form.
        """
        count = _whole(wire, "count")
        flat = _unpacked(wire, "model", np.float32, count * parameters)
        return cls(flat.reshape(count, parameters), _scaler(wire, features))


@dataclass(frozen=True)
class Closing:
    """One hospital's view of each candidate.

    Attributes:
        rows: Validation rows.
        losses: Mean validation loss of each candidate, without an intercept.
        intercepts: The hospital's own shift of the logit for each candidate.
        histograms: Validation scores of each candidate with that shift.
    """

    rows: int
    losses: tuple[float, ...]
    intercepts: tuple[float, ...]
    histograms: tuple[ScoreHistogram, ...]

    def encode(self) -> Wire:
        """The message as it travels."""
        figures = np.array([self.losses, self.intercepts], dtype=np.float64)
        wire: Wire = {"rows": self.rows, "figures": _packed(figures, np.float64)}
        for place, histogram in enumerate(self.histograms):
            wire[f"histogram_{place}"] = _packed(histogram.to_array(), np.int32)
        return wire

    @classmethod
    def decode(cls, wire: Mapping[str, Any], count: int) -> Closing:
        """Read and check what ``encode`` made.

        Raises:
            DataError: A field is absent, not finite or not of its form.
        """
        losses, intercepts = _unpacked(wire, "figures", np.float64, 2 * count).reshape(2, count)
        return cls(
            _whole(wire, "rows"),
            tuple(losses.tolist()),
            tuple(intercepts.tolist()),
            tuple(_histogram(wire, f"histogram_{place}") for place in range(count)),
        )


@dataclass(frozen=True)
class Refusal:
    """Why a hospital could not do what it was asked, without a row's value.

    Attributes:
        reason: In words.
        later: Whether the same question may be answered later.
    """

    reason: str
    later: bool = False

    def encode(self) -> Wire:
        """The message as it travels."""
        return {"refusal": self.reason[:500], "later": self.later}

    @staticmethod
    def decode(wire: Mapping[str, Any]) -> Refusal | None:
        """The refusal that a message is; None if it is an answer.

        Args:
            wire: The message's fields.
        """
        reason = wire.get("refusal")
        return None if reason is None else Refusal(str(reason), bool(wire.get("later")))


def _histogram(wire: Mapping[str, Any], name: str) -> ScoreHistogram:
    content = wire.get(name)
    if not isinstance(content, bytes) or len(content) % 4:
        raise DataError(f"field {name} must be whole numbers of four bytes.")
    return ScoreHistogram.from_array(np.frombuffer(content, dtype=np.int32))


def _scaler(wire: Mapping[str, Any], features: int) -> Scaler:
    both = _unpacked(wire, "scaler", np.float64, 2 * features)
    return Scaler(both[:features], both[features:])
