"""Log rounds to MLflow as they end, without delaying or failing the training.

A separate thread connects and logs, so that neither MLflow's import nor a slow server delays a
round. Rounds that are not logged live are logged later from ``rounds.jsonl`` (``sync``).
"""

from __future__ import annotations

import logging
import queue
import threading
from datetime import UTC, datetime
from typing import Protocol

from tasks.run.plan import Plan
from tasks.settings import Settings
from tasks.telemetry.round_event import RoundEvent
from tasks.telemetry.sync import log_rounds
from tasks.telemetry.tracking import client, mlflow_errors, open_run

log = logging.getLogger(__name__)


class RoundSink(Protocol):
    """A receiver of round events."""

    def log_round(self, event: RoundEvent) -> None:
        """Accept one round; must not raise and must not block."""

    def close(self, deadline: float = ...) -> list[str]:
        """Finish within ``deadline`` seconds and return notes for the manifest."""


class MlflowRounds:
    """Log rounds to the federated model's MLflow run.

    A server that does not answer stops the live logging, not the training; the notes of ``close``
    report it.
    """

    def __init__(self, plan: Plan, settings: Settings) -> None:
        """Start the thread without waiting for it.

        Args:
            plan: The run's plan.
            settings: Where MLflow is.
        """
        self._plan, self._settings = plan, settings
        self._events: queue.SimpleQueue[RoundEvent | None] = queue.SimpleQueue()
        self._fault = ""
        self._logged = 0
        self._received = 0
        # A daemon, so that a server that hangs cannot keep the process alive.
        self._thread = threading.Thread(target=self._work, name="mlflow-rounds", daemon=True)
        self._thread.start()

    def log_round(self, event: RoundEvent) -> None:
        """Queue a round for the thread; returns at once."""
        self._received += 1
        self._events.put(event)

    def close(self, deadline: float = 20.0) -> list[str]:
        """Log the queued rounds and end the thread.

        Args:
            deadline: Maximum wait in seconds.

        Returns:
            Notes; empty if every round was logged.
        """
        self._events.put(None)
        self._thread.join(deadline)
        if self._thread.is_alive():
            self._fault = self._fault or f"no answer within {deadline:.0f} s"
        if not self._fault:
            return []
        return [
            f"MLflow logged {self._logged} of {self._received} rounds during training "
            f"({self._fault}); the rest is logged with the evaluation."
        ]

    def _work(self) -> None:
        try:
            connected = client(self._settings)
            identifier = open_run(connected, self._plan, self._settings, "federated")
            while (event := self._events.get()) is not None:
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                with mlflow_errors(self._settings, "log a round"):
                    log_rounds(connected, identifier, [event], now)
                self._logged += 1
        except Exception as error:  # noqa: BLE001  (telemetry must not end a training run)
            self._fault = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            log.warning("live logging to MLflow ended: %s", self._fault)
