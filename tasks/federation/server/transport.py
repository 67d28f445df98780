"""Ask hospitals a question and wait for the answers, with a deadline: the server's end of Flower.

A loop of our own over ``push_messages`` and ``pull_messages``: Flower's ``send_and_receive`` looks
for replies every 3 s, waits for hospitals whose process is known to be dead, and counts no replies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from tasks.errors import DataError
from tasks.federation.messages import Refusal
from tasks.federation.wire import Wire, size_of

T = TypeVar("T")
POLL = 0.1


@dataclass
class Answers:
    """What came back.

    Attributes:
        replies: Fields by hospital.
        lost: Why there is no reply, by hospital.
        late: The lost ones that simply had not answered in time.
        later: The lost ones that could not answer yet, and may be asked again.
        bytes_up: Payload from the hospitals; that they cannot answer yet is none.
        bytes_down: Payload to them.
    """

    replies: dict[str, Wire] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    bytes_up: int = 0
    bytes_down: int = 0

    def take(self, hospital: str, wire: Wire) -> None:
        """Put what a hospital has said to the replies or, with its reason, to the lost ones.

        Args:
            hospital: Who has said it.
            wire: The message's fields.
        """
        refusal = Refusal.decode(wire)
        if refusal is None:
            self.replies[hospital] = wire
        else:
            self.lost[hospital] = refusal.reason
        if refusal is not None and refusal.later:
            self.later.add(hospital)
        else:
            self.bytes_up += size_of(wire)

    def add(self, others: Answers) -> None:
        """Add what came back when some hospitals were asked again.

        Args:
            others: The newer answers.
        """
        self.replies |= others.replies
        self.lost = {
            n: why for n, why in (self.lost | others.lost).items() if n not in self.replies
        }
        self.late = (self.late | others.late) & set(self.lost)
        self.later = (self.later | others.later) & set(self.lost)
        self.bytes_up += others.bytes_up
        self.bytes_down += others.bytes_down

    def decoded(self, decode: Callable[[Wire], T], word: str) -> dict[str, T]:
        """The sound replies, by hospital; the others are put to the lost ones with the reason.

        Args:
            decode: Makes a reply of its fields, or raises ``DataError``.
            word: What a reply is called.
        """
        found = {}
        for name in sorted(self.replies):
            try:
                found[name] = decode(self.replies[name])
            except DataError as error:
                self.lost[name] = f"its {word} refused: {error}"
        return found


class Link(Protocol):
    """A way to the hospitals; tests have one without a network."""

    def present(self) -> set[str]:
        """Hospitals that can be asked now."""

    def gone(self) -> dict[str, str]:
        """Hospitals whose process is known to have ended, with the reason."""

    def ask(
        self,
        question: str,
        tasks: Mapping[str, Wire],
        *,
        number: int,
        deadline: float,
        doubtful: Mapping[str, int] | None = None,
        needed: int = 1,
    ) -> Answers:
        """Ask hospitals and wait for their answers.

        Args:
            question: ``statistics``, ``train`` or ``close``.
            tasks: The question's fields by hospital.
            number: The round.
            deadline: Seconds to wait at most.
            doubtful: Hospitals that missed their last deadlines, and how many: once all others
                have answered, and ``needed`` have, they get only a short grace.
            needed: Replies without which the round fails.
        """


def wait_until_ready(
    link: Link,
    hospitals: Collection[str],
    needed: int,
    deadline: float,
    sleep: Callable[[float], None] = time.sleep,
) -> set[str]:
    """Wait until all hospitals have joined, or as many as are needed when the deadline passes.

    Args:
        link: The way to them.
        hospitals: All that may come.
        needed: The fewest that will do.
        deadline: Seconds.
        sleep: Waits between two looks.

    Returns:
        Those that are there; fewer than ``needed`` if that is how it ended.
    """
    end = time.monotonic() + deadline
    while True:
        there, gone = link.present() & set(hospitals), set(link.gone())
        if there >= set(hospitals) - gone or len(set(hospitals) - gone) < needed:
            return there
        if time.monotonic() > end:
            return there
        sleep(POLL)
