"""What the step ``federated`` reports: figures of the final model and of training."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Validation(BaseModel):
    """The result on all validation rows, from summed histograms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    auroc: float | None
    loss: float | None


class Outcome(BaseModel):
    """The federated step's figures, and notes for the report.

    Attributes:
        validation: Of the result, with the hospitals' intercepts.
        threshold: Risk from which a patient counts as positive.
        rounds: Rounds done.
        best_round: After how many rounds the result was reached.
        stopped: Why training ended.
        bytes_up: Payload from the hospitals over the run.
        bytes_down: Payload to the hospitals over the run.
        participation: Rounds in which a hospital's update was used.
        lost: Rounds in which it was asked in vain.
        intercepts: Each hospital's shift of the logit.
        notes: Anything out of the ordinary.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    validation: Validation
    threshold: float
    rounds: int
    best_round: int
    stopped: str
    bytes_up: int
    bytes_down: int
    participation: dict[str, int]
    lost: dict[str, list[int]]
    intercepts: dict[str, float]
    notes: list[str]
