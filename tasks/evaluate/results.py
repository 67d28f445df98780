"""What ``evaluate`` keeps: every model on the same test rows, pooled and at each hospital."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Interval = tuple[float, float]


class Figures(BaseModel):
    """A frozen part of the comparison; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ConfusionCounts(Figures):
    """Patients by label and decision; None where a count is too small to leave a hospital."""

    tn: int | None = None
    fp: int | None = None
    fn: int | None = None
    tp: int | None = None


class CalibrationFigures(Figures):
    """How predicted and observed risk agree; slope and intercept None where undefined."""

    slope: float | None = None
    intercept: float | None = None
    mean_predicted: float | None = None
    observed: float | None = None

    @property
    def error(self) -> float | None:
        """Absolute difference of the mean predicted and the observed risk."""
        if self.mean_predicted is None or self.observed is None:
            return None
        return abs(self.mean_predicted - self.observed)


class StratumFigures(Figures):
    """One risk stratum; counts None where too small to leave a hospital."""

    rows: int | None = None
    positives: int | None = None
    observed: float | None = None
    """Share of positives in it."""


class TestFigures(Figures):
    """A model on some test rows.

    Attributes:
        rows: Test patients.
        positives: Those of label 1.
        threshold: Risk from which a patient counts as positive; None where hospitals' models
            with thresholds of their own are put together.
        strata: Low, Medium and High.
    """

    rows: int
    positives: int | None = None
    threshold: float | None = None
    auroc: float | None = None
    auroc_ci: Interval | None = None
    auprc: float | None = None
    auprc_ci: Interval | None = None
    brier: float | None = None
    brier_ci: Interval | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    confusion: ConfusionCounts = ConfusionCounts()
    calibration: CalibrationFigures = CalibrationFigures()
    strata: dict[str, StratumFigures] = Field(default_factory=dict)


class ModelSummary(TestFigures):
    """A model on the test rows of all hospitals that scored it.

    Attributes:
        auroc_within: Mean of the AUROCs inside the hospitals; the pooled AUROC also rewards
            knowing which hospital a patient is from.
        spread: Highest less lowest AUROC of a hospital.
        per_hospital: The same figures at each hospital.
    """

    auroc_within: float | None = None
    auroc_within_ci: Interval | None = None
    spread: float | None = None
    per_hospital: dict[str, TestFigures] = Field(default_factory=dict)


class HospitalRows(Figures):
    """How many patients a hospital brought."""

    name: str
    title: str
    rows: int
    positives: int
    train: int
    validation: int
    test: int


class Difference(Figures):
    """One model against another.

    Attributes:
        value: The ratio or the difference.
        ci: Its interval.
        unpaired: Hospitals whose patients count as if each model had been given patients of its
            own. That makes the interval too wide, for both models see the same patients.
    """

    value: float
    ci: Interval | None = None
    unpaired: list[str] = Field(default_factory=list)

    def pairing(self, hospitals: int) -> str:
        """What to say of the interval, where the comparison has so many hospitals."""
        if not self.unpaired:
            return "paired"
        where = "" if len(self.unpaired) >= hospitals else f" at {', '.join(self.unpaired)}"
        return f"unpaired{where}, so too wide"


class MissingFigures(Figures):
    """Whether a value's absence tells of the outcome, on all hospitals' training rows.

    Attributes:
        rows: Patients who lack the value, at hospitals with enough of them to tell.
        missing_rate: Share of positives among them.
        known_rate: Share of positives among the others.
    """

    rows: int
    missing_rate: float
    known_rate: float


class RoundFigures(Figures):
    """One federated round, for charts."""

    round: int
    seconds: float
    selected: list[str]
    replied: list[str]
    lost: dict[str, str] = Field(default_factory=dict)
    train_loss: float | None = None
    validation_loss: float | None = None
    validation_auroc: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    note: str = ""


class Comparison(Figures):
    """All of a run's results.

    Attributes:
        central: None where pooling is forbidden.
        local: Each hospital's own model, on the test rows of all hospitals that scored it.
        local_only: Every hospital scored by its own local model: what there is without sharing.
        champion: The registry's champion when the run began; None without a comparable one.
        champion_version: Its version; None without any.
        champion_source: ``synthetic``, or its study's way to get at real rows.
        champion_differs: Why it is not comparable.
        ratio: Federated over central AUROC, both without hospitals' own intercepts.
        within_gain: Federated less local-only mean of within-hospital AUROCs.
        champion_difference: Federated less champion AUROC, both with the intercepts that they have.
        reference_difference: Federated less reference AUROC, likewise.
        rounds: Rounds that were run.
        rounds_to_99: First round whose validation AUROC reached 99 % of the centralized model's
            (of the best round's where there is none); None if none did.
        rounds_to_99_of: ``central`` or ``best round``.
        seconds: Per step: the longest of the hospitals', and ``total``: the sum of all work.
        history: The rounds.
        notes: Remarks of all steps.
    """

    run: str
    study: str
    source: str
    seed: int
    confidence: float
    hospitals: list[HospitalRows]
    central: ModelSummary | None = None
    local: dict[str, ModelSummary] = Field(default_factory=dict)
    local_only: ModelSummary | None = None
    federated: ModelSummary
    reference: ModelSummary | None = None
    published: ModelSummary | None = None
    champion: ModelSummary | None = None
    champion_version: int | None = None
    champion_source: str | None = None
    champion_differs: list[str] = Field(default_factory=list)
    reference_column: str | None = None
    """The one column that the reference model uses."""
    ratio: Difference | None = None
    within_gain: Difference | None = None
    champion_difference: Difference | None = None
    reference_difference: Difference | None = None
    rounds: int
    best_round: int | None = None
    rounds_to_99: int | None = None
    rounds_to_99_of: str = "best round"
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: dict[str, float] = Field(default_factory=dict)
    history: list[RoundFigures] = Field(default_factory=list)
    importance: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Drop of validation AUROC under permutation, by model and feature."""
    missing: dict[str, MissingFigures] = Field(default_factory=dict)
    """By column, where values are missing."""
    oracle_auroc: float | None = None
    notes: list[str] = Field(default_factory=list)

    @property
    def synthetic(self) -> bool:
        """Whether the patients were drawn by a generator."""
        return self.source.startswith("synthetic:")

    def summaries(self) -> dict[str, ModelSummary]:
        """The models that there are, in the order of a table, by their key."""
        found: dict[str, Any] = {
            "central": self.central,
            "federated": self.federated,
            "local_only": self.local_only,
            **{f"local:{name}": summary for name, summary in self.local.items()},
            "reference": self.reference,
            "published": self.published,
            "champion": self.champion,
        }
        return {key: summary for key, summary in found.items() if summary is not None}
