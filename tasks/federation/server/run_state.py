"""What the questions of one run share, and how an answer is checked against what is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from tasks.federation.messages import Question, Sizes, Task
from tasks.federation.run_files import CHECKPOINT, PRIVATE, STORED
from tasks.federation.server import checkpoint
from tasks.federation.server.state import ServerState
from tasks.federation.server.transport import Replies, Transport
from tasks.federation.server.weighting import weigh
from tasks.federation.strategies import Strategy
from tasks.federation.update.pipeline import Pipeline
from tasks.federation.vector import Vector
from tasks.study import Study


class PartRows(BaseModel):
    """Rows of a hospital's gold table, as the manifest of its step ``features`` has them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: int
    validation: int


class ServerConfig(BaseModel):
    """What the server's process is configured with: no hospital's path.

    Attributes:
        study: The run's frozen study.
        hospitals: Those of the run.
        rows: Each one's rows.
        nodes: Node id by hospital.
        fingerprint: Of the study and the tables' versions.
        shared: Whether a checkpoint is put into a store before the next question is asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: Study
    hospitals: list[str]
    rows: dict[str, PartRows]
    nodes: dict[str, int]
    fingerprint: str
    shared: bool = False


@dataclass
class RunState:
    """What the questions of one run share.

    Attributes:
        config: The server's configuration.
        transport: The way to the hospitals.
        strategy: How updates become a model.
        pipeline: What happens to updates on their way.
        sizes: Of the run's messages.
        folder: Where events, checkpoint and model are kept.
        state: What is known so far; each round replaces it.
        missed: Hospitals that missed their last deadlines, and how many in a row.
    """

    config: ServerConfig
    transport: Transport
    strategy: Strategy
    pipeline: Pipeline
    sizes: Sizes
    folder: Path
    state: ServerState
    missed: dict[str, int] = field(default_factory=dict)

    @property
    def study(self) -> Study:
        """The frozen study."""
        return self.config.study

    @property
    def train_rows(self) -> dict[str, int]:
        """Training rows by hospital."""
        return {name: rows.train for name, rows in self.config.rows.items()}

    def own_weight(self, hospital: str) -> float:
        """The weight with which a hospital sends its update: its rows, or 1."""
        equal = self.study.federation.weighting.kind == "equal"
        return 1.0 if equal else float(self.config.rows[hospital].train)

    def weights(self, hospitals: list[str]) -> dict[str, float]:
        """What each counts among some hospitals, in the unit of ``own_weight``."""
        if not hospitals:
            return {}
        shares = weigh(self.study.federation.weighting, {h: self.train_rows[h] for h in hospitals})
        whole = sum(self.own_weight(name) for name in hospitals)
        return {name: share * whole for name, share in shares.items()}

    def ask(
        self,
        question: Question,
        tasks: Mapping[str, Task],
        *,
        deadline: float,
        needed: int | None = None,
    ) -> Replies:
        """Ask hospitals, wait for their replies, and note who missed the deadline.

        Args:
            question: The question.
            tasks: By hospital.
            deadline: Seconds.
            needed: Answers without which the question fails; the study's by default.
        """
        if needed is None:
            needed = self.study.federation.min_hospitals
        replies = self.transport.ask(
            question, tasks, deadline=deadline, missed=self.missed, needed=needed
        )
        for name in replies.answers:
            self.missed.pop(name, None)
        for name in replies.timed_out:
            self.missed[name] = self.missed.get(name, 0) + 1
        return replies

    def check(self, hospital: str, vector: Vector) -> str | None:
        """What a hospital's answer says that cannot be, or None.

        Args:
            hospital: Whose it is.
            vector: Its answer.
        """
        rows = self.config.rows[hospital]
        known = {"rows": float(rows.train), "validation_rows": float(rows.validation)}
        known["weight"] = self.own_weight(hospital)
        bounds = {"labelled": rows.train, "positives": rows.train, "hospitals": 1}
        bounds |= {"histogram": rows.validation, "w": rows.validation}
        signed = (
            "update",
            "moments",
            "ws",
            "intercept",
            *self.strategy.segments(self.sizes.parameters),
        )
        for name in vector.layout:
            values = vector[name]
            if name in known and values[0] != known[name]:
                return f"{name} is {values[0]:g}, its manifest says {known[name]:g}"
            if name in bounds and values.sum() > bounds[name]:
                return f"{name} is {values.sum():g}, and cannot be above {bounds[name]:g}"
            if name not in signed and values.min() < 0:
                return f"{name} is below 0"
        if "ws" in vector.layout and not _sound_shifts(vector, rows.validation):
            return "the sums of its shifts do not belong together"
        return None

    def keep(self, state: ServerState) -> None:
        """Take a state for the newest, and return when its checkpoint is kept."""
        self.state = state
        checkpoint.save(self.folder / CHECKPOINT, state, self.config.fingerprint)
        if self.config.shared:
            checkpoint.wait_until_stored(self.folder / CHECKPOINT, self.folder / PRIVATE / STORED)


def _sound_shifts(vector: Vector, rows: int) -> bool:
    w, ws, ws2, w2 = (vector[name] for name in ("w", "ws", "ws2", "w2"))
    agree = np.isclose(w2, w**2) & np.isclose(ws2 * w, ws**2)
    return bool((agree & (abs(ws) <= rows)).all())
