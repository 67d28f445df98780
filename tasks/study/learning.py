"""The model, its split, and how hospitals train it together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.study.base import Count, Fraction, Part, Positive

StrategyName = Literal[
    "scaffold",
    "fedavg",
    "fedprox",
    "fednova",
    "fedavgm",
    "fedadam",
    "fedyogi",
    "fedadagrad",
    "fedmedian",
    "fedtrimmedavg",
    "krum",
]
ROBUST: frozenset[str] = frozenset({"fedmedian", "fedtrimmedavg", "krum"})
"""Strategies that compare single updates, so that no weight of a hospital applies."""


class Split(Part):
    """The parts of a hospital's rows, by a keyed hash of the patient's id.

    The key is not the run's seed: a patient stays in the same part in every run of the study.
    """

    train: Annotated[float, Field(gt=0, lt=1)] = 0.6
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    key: Annotated[str, Field(min_length=1)]
    """Another key makes another split; changing it makes results incomparable."""

    @model_validator(mode="after")
    def _sum(self) -> Split:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("train, validation and test must add up to 1")
        return self


class Model(Part):
    """The network: encoder to an embedding, head to one logit, linear skip from the input."""

    embedding: Count = 64
    """Width of the representation."""
    head: Annotated[tuple[Count, ...], Field(min_length=1)] = (32, 16)
    """Widths of the head's hidden layers; its last layer gives the logit."""
    activation: Literal["tanh", "relu"] = "tanh"
    skip: bool = True
    """A linear path from the input to the logit."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    loss: Literal["bce", "focal"] = "bce"
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    class_weight: Literal["none", "balanced"] = "none"
    weight_decay: Annotated[float, Field(ge=0)] = 0.001
    """L2 penalty on weights, not on biases, added to each step's gradient."""
    batch_size: Count = 64
    learning_rate: Positive = 0.3
    """Of the centralized and local baselines."""
    max_epochs: Count = 60
    """Of the baselines; the best epoch is chosen on validation rows."""
    patience: Count = 10
    """Epochs without a better validation loss after which a baseline stops."""


class Schedule(Part):
    """The clients' learning rate over rounds, as a factor of ``learning_rate``."""

    kind: Literal["constant", "step", "cosine", "plateau"] = "constant"
    every: Count = 10
    """step: rounds between two cuts; plateau: rounds without improvement before a cut."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """step and plateau: what a cut multiplies by."""
    floor: Fraction = 0.01
    """cosine and plateau: the lowest factor."""


class Selection(Part):
    """Which hospitals take part in a round."""

    kind: Literal["all", "random", "rows", "longest_unseen", "loss"] = "all"
    """rows: with a chance in proportion to training rows; longest_unseen: those that waited
    longest; loss: those with the highest last validation loss."""
    count: Count | None = None
    """Hospitals a round, for every kind but all."""

    @model_validator(mode="after")
    def _whole(self) -> Selection:
        if (self.kind == "all") != (self.count is None):
            raise ValueError("count belongs to every kind but all, and is needed there")
        return self


class Weighting(Part):
    """How much a hospital's update counts."""

    kind: Literal["rows", "equal", "capped"] = "rows"
    cap: Annotated[float, Field(gt=0, le=1)] | None = None
    """capped: the largest share that one hospital may have; the rest is spread over the others."""

    @model_validator(mode="after")
    def _whole(self) -> Weighting:
        if (self.kind == "capped") != (self.cap is not None):
            raise ValueError("cap belongs to kind capped, and is needed there")
        return self


class Stop(Part):
    """When training ends before the last round."""

    patience: Count | None = None
    """Rounds without a better validation loss; none to run all rounds."""
    min_delta: Annotated[float, Field(ge=0)] = 0.001
    """How much lower a validation loss must be to count as better, for patience and for the best
    round; merging scores into groups alone moves a loss by .0006."""


class Deadlines(Part):
    """The federation's three deadlines, in seconds."""

    ready: Positive = 120
    """Until enough hospitals have joined."""
    round: Positive = 120
    """Until a round's replies are in; who has not answered is left out of the round."""
    run: Positive = 3600
    """Until the federated training ends."""


class StrategyOptions(Part):
    """Parameters of single strategies; those of another strategy are refused."""

    proximal_mu: Annotated[float, Field(ge=0)] | None = None
    """fedprox: weight of the squared distance to the round's model (default 0.01)."""
    server_learning_rate: Positive | None = None
    """fedavgm, fedadam, fedyogi, fedadagrad, scaffold: the server's step size."""
    server_momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """fedavgm."""
    beta_1: Annotated[float, Field(ge=0, lt=1)] | None = None
    """fedadam, fedyogi."""
    beta_2: Annotated[float, Field(ge=0, lt=1)] | None = None
    """fedadam, fedyogi."""
    tau: Positive | None = None
    """fedadam, fedyogi, fedadagrad: adaptivity."""
    trim: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    """fedtrimmedavg: share cut from each end."""
    malicious: Annotated[int, Field(ge=0)] | None = None
    """krum: hospitals that may send anything."""


ALLOWED_OPTIONS: dict[str, frozenset[str]] = {
    "scaffold": frozenset({"server_learning_rate"}),
    "fedavg": frozenset(),
    "fedprox": frozenset({"proximal_mu"}),
    "fednova": frozenset(),
    "fedavgm": frozenset({"server_learning_rate", "server_momentum"}),
    "fedadam": frozenset({"server_learning_rate", "beta_1", "beta_2", "tau"}),
    "fedyogi": frozenset({"server_learning_rate", "beta_1", "beta_2", "tau"}),
    "fedadagrad": frozenset({"server_learning_rate", "tau"}),
    "fedmedian": frozenset(),
    "fedtrimmedavg": frozenset({"trim"}),
    "krum": frozenset({"malicious"}),
}


class Federation(Part):
    """Federated training."""

    strategy: StrategyName = "scaffold"
    options: StrategyOptions = StrategyOptions()
    rounds: Count = 12
    local_epochs: Count = 5
    batch_size: Count = 64
    learning_rate: Positive = 0.3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Schedule = Schedule()
    weighting: Weighting = Weighting()
    selection: Selection = Selection()
    min_hospitals: Count = 2
    """Replies below which a round fails; a failed round is tried once more, then the run ends
    with exit code 4 and its checkpoint."""
    max_update_norm: Positive | None = None
    """Longest update that counts (L2 norm); by default 10 times the median of the round, where at
    least three hospitals answered."""
    stop: Stop = Stop()
    deadlines: Deadlines = Deadlines()
    intercept: bool = True
    """Whether each hospital fits its own intercept on its validation rows after the last round."""
    executor: Literal["warm", "stock"] = "warm"
    """warm: ClientApps fork from an interpreter that has imported everything once; stock:
    Flower's own, slower and without private API."""

    @model_validator(mode="after")
    def _sound(self) -> Federation:
        given = {key for key, value in self.options.model_dump().items() if value is not None}
        extra = given - ALLOWED_OPTIONS[self.strategy]
        if extra:
            raise ValueError(
                f"options {sorted(extra)} do not belong to strategy {self.strategy}, which takes "
                f"{sorted(ALLOWED_OPTIONS[self.strategy]) or 'none'}"
            )
        if self.strategy == "scaffold" and self.momentum > 0:
            raise ValueError(
                "scaffold corrects each plain SGD step, so momentum must be 0 (Karimireddy et al. "
                "2020); choose momentum: 0 or another strategy"
            )
        if self.strategy in ROBUST and self.weighting.kind != "rows":
            raise ValueError(
                f"{self.strategy} compares single updates and applies no weights: leave weighting "
                "out"
            )
        count = self.selection.count
        if count is not None and count < self.min_hospitals:
            raise ValueError(
                f"selection.count {count} is below min_hospitals {self.min_hospitals}: no round "
                "could succeed"
            )
        if self.deadlines.round >= self.deadlines.run:
            raise ValueError("deadlines.round must be shorter than deadlines.run")
        return self
