"""How models are evaluated, and what one must reach to be promoted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.study.base import Count, Fraction, Part


class PublishedScore(Part):
    """A score from the literature, as a linear predictor of the study's features."""

    name: str
    source: str
    """Where it was published."""
    intercept: float
    weights: Annotated[dict[str, float], Field(min_length=1)]
    """Per feature name (``age``, ``gender__male``): its weight on the log-odds, per unit."""


class Strata(Part):
    """Risk strata: below ``medium`` is Low, from ``high`` on is High."""

    medium: Fraction = 0.05
    high: Fraction = 0.15

    @model_validator(mode="after")
    def _order(self) -> Strata:
        if not 0 < self.medium < self.high < 1:
            raise ValueError("medium and high must satisfy 0 < medium < high < 1")
        return self


class Evaluation(Part):
    """What is measured, on test rows that nothing was chosen on."""

    reference: str = "auto"
    """The reference model's one column; auto takes the strongest on training rows."""
    published: PublishedScore | None = None
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples for an interval."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    min_count: Count = 5
    """No group of fewer patients leaves a hospital in a histogram or table."""
    threshold: Literal["youden", "f1"] = "youden"
    """How the decision threshold is chosen, on validation rows."""
    strata: Strata = Strata()
    cross_site: bool = True
    """Whether each local model is also tested at the other hospitals (needs it to leave its own).
    """


class Gates(Part):
    """Conditions for promotion; one left out is not checked."""

    min_ratio_to_central: Annotated[float, Field(gt=0)] | None = 0.98
    """Lowest federated AUROC as a share of the centralized one."""
    max_drop_to_champion: Annotated[float, Field(ge=0)] | None = 0.01
    """How much lower than the champion's the AUROC may be, on the same test rows."""
    replaces: Annotated[int, Field(ge=1)] | None = None
    """The one registered version that may be replaced although it is not comparable."""
    calibration_slope: tuple[float, float] | None = (0.5, 2.0)
    max_calibration_error: Annotated[float, Field(gt=0)] | None = 0.02
    """Largest difference between mean predicted and observed risk."""
    beats_reference_by: float | None = 0.0
    """Lowest lead in AUROC over the reference model."""
    max_spread: Annotated[float, Field(gt=0)] | None = None
    """Largest difference of AUROC between two hospitals."""

    @property
    def compared(self) -> list[str]:
        """Keys of the models whose AUROC a gate sets beside the federated model's."""
        limits = {
            "central": self.min_ratio_to_central,
            "champion": self.max_drop_to_champion,
            "reference": self.beats_reference_by,
        }
        return [key for key, limit in limits.items() if limit is not None]

    @model_validator(mode="after")
    def _order(self) -> Gates:
        if self.calibration_slope and not self.calibration_slope[0] < self.calibration_slope[1]:
            raise ValueError("calibration_slope must be [lowest, highest]")
        return self
