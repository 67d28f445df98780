"""The server's way to the hospitals: ask a question and wait for replies, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tasks.federation.messages import FORMS, Question, Refusal, Sizes, Task
from tasks.federation.vector import Vector
from tasks.federation.wire import Wire, size_of

REPLY_POLL = 0.1


@dataclass
class Replies:
    """What came back.

    Attributes:
        answers: Fields by hospital.
        failed: Why there is no answer, by hospital.
        timed_out: The failed ones that simply had not answered in time.
        retryable: The failed ones that could not answer yet, and may be asked again.
        bytes_up: Payload from the hospitals; that they cannot answer yet is none.
        bytes_down: Payload to them.
    """

    answers: dict[str, Wire] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    timed_out: set[str] = field(default_factory=set)
    retryable: set[str] = field(default_factory=set)
    bytes_up: int = 0
    bytes_down: int = 0

    def add(self, hospital: str, wire: Wire) -> None:
        """Add a hospital's reply: an answer, or a refusal with its reason.

        Args:
            hospital: Whose it is.
            wire: The message's fields.
        """
        refusal = Refusal.decode(wire)
        if refusal is None:
            self.answers[hospital] = wire
        else:
            self.failed[hospital] = refusal.reason
        if refusal is not None and refusal.later:
            self.retryable.add(hospital)
        else:
            self.bytes_up += size_of(wire)

    def time_out(self, hospital: str) -> None:
        """Note that a hospital has not answered in time."""
        self.timed_out.add(hospital)
        self.failed[hospital] = "no answer in time"

    def merge(self, others: Replies) -> None:
        """Merge what came back when some hospitals were asked again.

        Args:
            others: The newer replies.
        """
        self.answers |= others.answers
        failed = self.failed | others.failed
        self.failed = {n: why for n, why in failed.items() if n not in self.answers}
        self.timed_out = (self.timed_out | others.timed_out) & set(self.failed)
        self.retryable = (self.retryable | others.retryable) & set(self.failed)
        self.bytes_up += others.bytes_up
        self.bytes_down += others.bytes_down

    def decoded(
        self, question: Question, sizes: Sizes, check: Callable[[str, Vector], str | None]
    ) -> dict[str, Vector]:
        """The sound answers, sorted by hospital; the others fail with the reason.

        Whatever is wrong with an answer costs its sender this question and no one else anything.

        Args:
            question: What was asked.
            sizes: Of the run's messages.
            check: Says what is wrong with a hospital's vector, or None.
        """
        found = {}
        layout = FORMS[question].answer.layout(sizes)
        for name in sorted(self.answers):
            try:
                vector = Vector.decode(self.answers[name], layout)
                fault = check(name, vector)
            except Exception as error:  # noqa: BLE001  (the sender made it; any kind may come)
                fault = str(error) or type(error).__name__
            if fault:
                self.failed[name] = f"its answer was refused: {fault}"
            else:
                found[name] = vector
        return found


class Transport(Protocol):
    """A way to the hospitals; tests have one without a network."""

    def present(self) -> set[str]:
        """Hospitals that can be asked now."""

    def gone(self) -> dict[str, str]:
        """Hospitals whose process is known to have ended, with the reason."""

    def ask(
        self,
        question: Question,
        tasks: Mapping[str, Task],
        *,
        deadline: float,
        missed: Mapping[str, int] | None = None,
        needed: int = 1,
    ) -> Replies:
        """Ask hospitals and wait for their replies.

        Args:
            question: The question.
            tasks: By hospital.
            deadline: Seconds to wait at most.
            missed: Hospitals that missed their last deadlines, and how many: once all others
                have answered, and ``needed`` have, they get only a short grace.
            needed: Answers without which the question fails.
        """


def wait_until_ready(
    transport: Transport,
    hospitals: Collection[str],
    needed: int,
    deadline: float,
    sleep: Callable[[float], None] = time.sleep,
) -> set[str]:
    """Wait until all hospitals have joined, or as many as are needed when the deadline passes.

    Args:
        transport: The way to them.
        hospitals: All that may come.
        needed: The fewest that will do.
        deadline: Seconds.
        sleep: Waits between two looks.

    Returns:
        Those that are there; fewer than ``needed`` if that is how it ended.
    """
    end = time.monotonic() + deadline
    while True:
        there, gone = transport.present() & set(hospitals), set(transport.gone())
        if there >= set(hospitals) - gone or len(set(hospitals) - gone) < needed:
            return there
        if time.monotonic() > end:
            return there
        sleep(REPLY_POLL)
