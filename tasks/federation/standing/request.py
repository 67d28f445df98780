"""The request by which a step submits a run to a standing federation."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict

from tasks.run.steps import CONSORTIUM
from tasks.study import Study

REQUESTS = f"{CONSORTIUM}/requests"


SPARE = 60.0


AWAY = 300.0
"""Seconds for which the store may be away while the step waits: the run trains on meanwhile."""


TAKEN = "taken"
"""Holds the attempt that the desk trains for."""


class FederationRequest(BaseModel):
    """A run that a standing federation is asked to train.

    Attributes:
        run: The run's id.
        attempt: The id of the step's attempt that asks.
        study: The run's frozen study.
        hospitals: Those of the run.
        fingerprint: Of the study and the tables' versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    attempt: str
    study: Study
    hospitals: list[str]
    fingerprint: str


def sign_of(run: str) -> str:
    """The object with the newest sign of life of the step that waits for a run.

    Args:
        run: The run's id.
    """
    return f"{REQUESTS}/{run}.waits"


def attempt_of(content: bytes) -> str:
    """Which attempt a request, an outcome or a failure belongs to; empty where it does not say."""
    try:
        found = json.loads(content)
    except ValueError:
        return ""
    return str(found.get("attempt", "")) if isinstance(found, dict) else ""
