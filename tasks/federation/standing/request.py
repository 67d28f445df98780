"""The request by which a step submits a run to a standing federation."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict

from tasks.federation.server.run_state import ServerConfig
from tasks.run.steps import CONSORTIUM

REQUESTS = f"{CONSORTIUM}/requests"
DEADLINE_SLACK = 60.0
"""Seconds beyond the run's deadlines after which no result is expected."""
STORE_AWAY = 300.0
"""Seconds for which the store may be away while the step waits."""
ACCEPTED = "taken"
"""Holds the attempt that the dispatcher trains for."""


class FederationRequest(BaseModel):
    """A run that a standing federation is asked to train.

    Attributes:
        run: The run's id.
        attempt: The id of the step's attempt that asks.
        config: The server's configuration, without the nodes, which the step does not know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    attempt: str
    config: ServerConfig


def heartbeat_of(run: str) -> str:
    """The object with the newest heartbeat of the step that waits for a run.

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
