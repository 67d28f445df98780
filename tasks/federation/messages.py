"""The questions that a server asks, and all that goes to a hospital and leaves it for them.

A hospital sends one summable vector a question, or a ``Refusal`` (an error without a row's value),
and nothing else. A new question needs its task, its answer and its line in ``FORMS``, and a method
of ``hospital/client.py`` that answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple, Self

import numpy as np

from tasks.errors import DataError
from tasks.federation.vector import Layout, Segment, Vector
from tasks.federation.wire import Floats, Wire, number, packed, unpacked, whole
from tasks.model.histogram import BINS, ScoreHistogram
from tasks.model.scaling import Moments, Scaler

CANDIDATES = 2
"""Models that ``evaluate`` judges at most: the best so far, and the last one."""


class Question(StrEnum):
    """What the server asks all chosen hospitals at once."""

    STATISTICS = "statistics"
    TRAIN = "train"
    EVALUATE = "evaluate"
    CALIBRATE = "calibrate"


@dataclass(frozen=True)
class Sizes:
    """What the lengths of messages depend on.

    Attributes:
        parameters: Of the model.
        features: Of the study.
        extra: The strategy's own segments of an update.
    """

    parameters: int
    features: int
    extra: Layout = field(default_factory=dict)


Models = Floats
"""Shape (k, p)."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What goes to a hospital with a question; a field travels as its type says.

    Attributes:
        round: Number of the round, from 1; 0 outside of rounds.
    """

    round: int = 0

    def encode(self) -> Wire:
        """The message as it travels; a field that is None does not."""
        wire: Wire = {}
        for name, value in vars(self).items():
            if isinstance(value, Scaler):
                wire[name] = packed(np.concatenate([value.mean, value.std]), np.float64)
            elif value is not None:
                wire[name] = packed(value, np.float32) if isinstance(value, np.ndarray) else value
        return wire

    @classmethod
    def decode(cls, wire: Mapping[str, Any], sizes: Sizes) -> Self:
        """Read and check what ``encode`` made.

        Raises:
            DataError: A field is absent or not of its form, or there are others.
        """
        known = {each.name: each for each in fields(cls)}
        lacking = {n for n, each in known.items() if each.default is MISSING} - set(wire)
        if lacking or not set(wire) <= set(known):
            raise DataError(f"the task's fields are {sorted(wire)}, expected {sorted(known)}.")
        return cls(**{name: _READERS[str(known[name].type)](wire, name, sizes) for name in wire})


@dataclass(frozen=True, kw_only=True)
class StatisticsTask(Task):
    """Ask for the sums of the federated standardisation.

    Attributes:
        features: How many the study has.
    """

    features: int


@dataclass(frozen=True, kw_only=True)
class TrainTask(Task):
    """A round's plan for one hospital. All else comes from the hospital's own copy of the study.

    Attributes:
        counted: The last round in which this hospital's answer counted; 0 for none. It goes on
            from its state of that round.
        model: Parameters to start from, shape (p,).
        common: What the strategy sends to all hospitals, shape (p,), or None.
        scaler: The federation's standardisation.
        factor: What the schedule multiplies the learning rate by in this round.
    """

    counted: int
    model: Floats
    common: Floats | None = None
    scaler: Scaler
    factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class EvaluateTask(Task):
    """The candidates for the result.

    Attributes:
        models: Shape (k, p), k at most ``CANDIDATES``.
        scaler: The federation's standardisation.
    """

    models: Models
    scaler: Scaler


@dataclass(frozen=True, kw_only=True)
class CalibrateTask(Task):
    """The result.

    Attributes:
        model: Shape (p,).
        scaler: The federation's standardisation.
        variance: Between the hospitals' shifts of the logit; 0 leaves them out.
    """

    model: Floats
    scaler: Scaler
    variance: float


@dataclass(frozen=True)
class Answer:
    """A hospital's answer, or the sum of several: the same segments.

    Attributes:
        vector: The segments.
    """

    vector: Vector

    @staticmethod
    def layout(sizes: Sizes) -> Layout:
        """The segments."""
        raise NotImplementedError


class Statistics(Answer):
    """Sums over training rows, before the first round.

    ``positives`` are counted over ``labelled`` rows: those of hospitals which have enough patients
    of each label to say how many.
    """

    @staticmethod
    def layout(sizes: Sizes) -> Layout:
        """See ``Answer.layout``."""
        one = Segment(1)
        moments = Segment(3 * sizes.features)
        return {"rows": one, "labelled": one, "positives": one, "moments": moments}

    @property
    def moments(self) -> Moments:
        """Sums a feature; groups below the least count are left out."""
        return Moments.from_array(self.vector["moments"].reshape(3, -1))

    @property
    def prevalence(self) -> float | None:
        """Share of positives, where any hospital may say so."""
        labelled = self.vector.number("labelled")
        return self.vector.number("positives") / labelled if labelled else None


class Update(Answer):
    """What training gave, and how the incoming model did on validation rows.

    ``update`` is the weighted change of the parameters; losses are times rows; the histogram has
    the incoming model's scores, groups below the least count merged.
    """

    @staticmethod
    def layout(sizes: Sizes) -> Layout:
        """See ``Answer.layout``."""
        one = Segment(1)
        return {
            "update": Segment(sizes.parameters, "float32"),
            **sizes.extra,
            **{"weight": one, "rows": one, "train_loss": one},
            **{"validation_rows": one, "validation_loss": one},
            "histogram": Segment(2 * BINS, "counts"),
        }

    @property
    def train_loss(self) -> float:
        """Mean loss of the last local epoch."""
        return self.vector.number("train_loss") / self.vector.number("rows")

    @property
    def validation_loss(self) -> float | None:
        """Mean loss of the incoming model; None without validation rows."""
        rows = self.vector.number("validation_rows")
        return self.vector.number("validation_loss") / rows if rows else None

    @property
    def histogram(self) -> ScoreHistogram:
        """Scores of the incoming model on validation rows."""
        return _histogram(self.vector)


class Evaluation(Answer):
    """How each candidate does on validation rows, without a hospital's own intercept.

    For the intercepts: over hospitals with enough patients of each label, their number and the sums
    of w, w s, w s^2 and w^2 of each candidate, where s is the one-step shift of the logit that
    makes the mean risk right and 1 / w its variance (``tasks/model/intercept.py``).
    """

    SUMS = ("w", "ws", "ws2", "w2")

    @staticmethod
    def layout(sizes: Sizes) -> Layout:
        """See ``Answer.layout``."""
        del sizes
        each, one = Segment(CANDIDATES), Segment(1)
        sums = dict.fromkeys(Evaluation.SUMS, each)
        return {"validation_rows": one, "losses": each, "hospitals": one, **sums}


class Calibration(Answer):
    """Validation scores of the result with the hospital's own intercept, and that intercept.

    An intercept is a release of its own, rounded; it is meant for its hospital, so its sum says
    nothing.
    """

    @staticmethod
    def layout(sizes: Sizes) -> Layout:
        """See ``Answer.layout``."""
        del sizes
        return {"histogram": Segment(2 * BINS, "counts"), "intercept": Segment(1)}

    @property
    def histogram(self) -> ScoreHistogram:
        """Scores of the result on validation rows."""
        return _histogram(self.vector)


class Form(NamedTuple):
    """What belongs to a question.

    Attributes:
        task: What goes to the hospital.
        answer: What comes back.
        flower: Flower's message type.
    """

    task: type[Task]
    answer: type[Answer]
    flower: str


FORMS: dict[Question, Form] = {
    Question.STATISTICS: Form(StatisticsTask, Statistics, "query"),
    Question.TRAIN: Form(TrainTask, Update, "train"),
    Question.EVALUATE: Form(EvaluateTask, Evaluation, "evaluate"),
    Question.CALIBRATE: Form(CalibrateTask, Calibration, "evaluate.calibrate"),
}


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
        return None if reason is None else Refusal(str(reason)[:500], bool(wire.get("later")))


def _histogram(vector: Vector) -> ScoreHistogram:
    return ScoreHistogram(vector["histogram"].reshape(2, BINS).astype(np.int64))


def _scaler(wire: Mapping[str, Any], name: str, sizes: Sizes) -> Scaler:
    both = unpacked(wire, name, np.float64, 2 * sizes.features)
    return Scaler(both[: sizes.features], both[sizes.features :])


def _model(wire: Mapping[str, Any], name: str, sizes: Sizes) -> Floats:
    return unpacked(wire, name, np.float32, sizes.parameters)


def _models(wire: Mapping[str, Any], name: str, sizes: Sizes) -> Floats:
    content = wire[name]
    count = len(content) // (4 * sizes.parameters) if isinstance(content, bytes) else 0
    if not 1 <= count <= CANDIDATES:
        raise DataError(f"1 to {CANDIDATES} models are judged in a run, not {count}.")
    return unpacked(wire, name, np.float32, count * sizes.parameters).reshape(count, -1)


_READERS: dict[str, Callable[[Mapping[str, Any], str, Sizes], Any]] = {
    "int": lambda wire, name, _: whole(wire, name),
    "float": lambda wire, name, _: number(wire, name),
    "Scaler": _scaler,
    "Floats": _model,
    "Floats | None": _model,
    "Models": _models,
}
"""By a field's type, as it is written."""
