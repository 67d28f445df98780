"""A stage: one thing that happens to an answer's vector on its way, with both ends in one class.

Clipping, noise, compression and protection are stages. A reader sees the whole of a protocol in
one file, and a test runs both its ends without a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tasks.federation.messages import Question
from tasks.federation.vector import Vector

State = dict[str, NDArray[Any]]
"""Arrays by name that survive a restart."""


@dataclass(frozen=True)
class About:
    """What a vector is the answer to.

    Attributes:
        question: The question.
        round: Number of the round, from 1; 0 outside of rounds.
        hospital: Whose answer it is; empty at the server.
        seen_weight: At the server: summed weights of all hospitals seen so far, in this round or
            not.
    """

    question: Question
    round: int
    hospital: str = ""
    seen_weight: float = 0.0


@dataclass(frozen=True)
class Total:
    """The opened sum over the hospitals that count.

    Attributes:
        vector: The sum.
        hospitals: Their names, sorted.
        each: Each one's vector; None where a stage protects them.
    """

    vector: Vector
    hospitals: tuple[str, ...]
    each: Mapping[str, Vector] | None


class Stage:
    """Both ends of one thing that happens to a vector; this one changes nothing."""

    protects = False
    """Whether the stage hides single hospitals' vectors from the server."""

    def send(self, vector: Vector, about: About) -> Vector:
        """The hospital's end.

        Args:
            vector: As the stage before gave it.
            about: What it answers.
        """
        del about
        return vector

    def receive(self, total: Total, about: About) -> Total:
        """The server's end.

        Args:
            total: As the stage behind gave it.
            about: What it answers.
        """
        del about
        return total

    def state(self) -> State:
        """Arrays of the hospital's end that must survive a restart."""
        return {}

    def restore(self, state: State) -> None:
        """Take up what ``state`` gave.

        Args:
            state: By name; empty to start from nothing.
        """
        del state
