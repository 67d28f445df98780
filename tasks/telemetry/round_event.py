"""One event per round, for every sink.

The server writes one JSON line a round to ``rounds.jsonl`` in the federated step's folder; MLflow,
the progress on the terminal and the report read nothing else.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class RoundEvent(BaseModel):
    """What one round did.

    Attributes:
        round: Number of the round, from 1.
        rounds: Rounds that the run has at most.
        seconds: Wall-clock time of the round.
        selected: Hospitals that were asked, sorted.
        replied: Hospitals whose update was used, sorted.
        lost: Why a selected hospital's update was not used, by hospital.
        weights: Share of each update in the aggregate, by hospital; they add up to 1.
        train_loss: Mean training loss over the hospitals, weighted by rows.
        validation_loss: Mean validation loss of the model that this round started from.
        validation_auroc: AUROC of that model from summed validation histograms; None where one
            class is absent.
        hospital_loss: Validation loss of that model by hospital.
        bytes_up: Payload from the hospitals, in bytes.
        bytes_down: Payload to the hospitals, in bytes.
        learning_rate: The clients' learning rate in this round.
        update_norm: L2 norm of the aggregated update.
        note: Anything out of the ordinary, in plain words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int = Field(ge=1)
    rounds: int = Field(ge=1)
    seconds: float
    selected: list[str]
    replied: list[str]
    lost: dict[str, str] = Field(default_factory=dict)
    weights: dict[str, float] = Field(default_factory=dict)
    train_loss: float | None = None
    validation_loss: float | None = None
    validation_auroc: float | None = None
    hospital_loss: dict[str, float] = Field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    learning_rate: float
    update_norm: float | None = None
    note: str = ""


def append_event(path: Path, event: RoundEvent) -> None:
    """Append one event to a ``rounds.jsonl``; a line is written whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(event.model_dump_json() + "\n")


def read_events(path: Path) -> list[RoundEvent]:
    """Read all whole lines of a ``rounds.jsonl``, in order; empty where there is none yet."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [RoundEvent.model_validate_json(line) for line in lines if line]
