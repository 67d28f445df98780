"""The transport over Flower's grid: push messages, poll for replies, with a deadline.

A loop of our own over ``push_messages`` and ``pull_messages``: Flower's ``send_and_receive`` polls
every 3 s, waits for hospitals whose process is known to be dead, and counts no replies.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.federation.wire import Wire, size_of

if TYPE_CHECKING:
    from flwr.serverapp import Grid

from tasks.federation.server.transport import POLL, Answers

GRACE = 3.0
"""Seconds that a hospital which missed its last deadline gets after all others have answered; a
quarter after two missed, a ninth after three: it may come back, but the others need not pay."""


NODES_EVERY = 5.0
"""Seconds between two looks at which SuperNodes are connected."""


RECORD = "fedrisk"


UNANSWERED = (3, 4)
"""Flower's codes for a message or a reply that has expired or is not there."""


KINDS = {"statistics": "query", "train": "train", "close": "evaluate"}
"""Flower's message type of each question."""


class FlowerLink:
    """The hospitals behind a Flower grid."""

    def __init__(self, grid: Grid, nodes: Mapping[str, int], gone: Path) -> None:
        """Say who is who.

        Args:
            grid: Flower's.
            nodes: Node id by hospital, as registered with the hospital's key.
            gone: File in which the launcher names hospitals whose process has ended.
        """
        self._grid, self._nodes, self._gone = grid, dict(nodes), gone

    def present(self) -> set[str]:
        """See ``Link.present``."""
        connected = set(self._grid.get_node_ids())
        gone = self.gone()
        return {h for h, node in self._nodes.items() if node in connected and h not in gone}

    def gone(self) -> dict[str, str]:
        """See ``Link.gone``."""
        if not self._gone.exists():
            return {}
        found: dict[str, str] = json.loads(self._gone.read_bytes())
        return found

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
        """See ``Link.ask``."""
        end = time.monotonic() + deadline
        found = Answers(bytes_down=sum(size_of(task) for task in tasks.values()))
        waiting = self._push(question, tasks, number, deadline, found)
        grace, look = float("inf"), time.monotonic() + NODES_EVERY
        while waiting:
            for message in self._grid.pull_messages(list(waiting)):
                hospital = waiting.pop(message.metadata.reply_to_message_id, None)
                if hospital is not None:
                    self._take(message, hospital, found)
            self._drop(waiting, self.gone(), found)
            now = time.monotonic()
            if now > look:
                connected, look = self.present(), now + NODES_EVERY
                away = {h for h in waiting.values() if h not in connected}
                self._drop(waiting, dict.fromkeys(away, "its SuperNode is not connected"), found)
            missed = [(doubtful or {}).get(hospital, 0) for hospital in waiting.values()]
            if missed and min(missed) > 0 and len(found.replies) >= needed:
                grace = min(grace, now + GRACE / min(missed) ** 2)
            if now > min(end, grace):
                break
            time.sleep(POLL)
        for hospital in waiting.values():
            found.late.add(hospital)
            found.lost[hospital] = "no answer in time"
        return found

    def _push(
        self,
        question: str,
        tasks: Mapping[str, Wire],
        number: int,
        deadline: float,
        found: Answers,
    ) -> dict[str, str]:
        """Send, and return which message waits for which hospital."""
        from flwr.app import ConfigRecord, Message, RecordDict

        names = [name for name in sorted(tasks) if name in self._nodes]
        found.lost |= dict.fromkeys(set(tasks) - set(names), "its key is not registered")
        messages = [
            Message(
                RecordDict({RECORD: ConfigRecord(tasks[name])}),
                dst_node_id=self._nodes[name],
                message_type=KINDS[question],
                # A message that comes too late is not worth a training.
                ttl=deadline,
                group_id=str(number),
            )
            for name in names
        ]
        ids = list(self._grid.push_messages(messages))
        waiting: dict[str, str] = {}
        for name, message_id in zip(names, ids or [""] * len(names), strict=True):
            if message_id:
                waiting[message_id] = name
            else:
                found.lost[name] = "the SuperLink did not take the message"
        return waiting

    def _take(self, message: Any, hospital: str, found: Answers) -> None:
        if message.has_error() and int(message.error.code) in UNANSWERED:
            found.late.add(hospital)
            found.lost[hospital] = "no answer in time"
            return
        if message.has_error():
            # Flower's reasons may quote an exception of the hospital: only its code is passed on.
            found.lost[hospital] = f"Flower error {int(message.error.code)}; see the hospital's log"
            return
        found.take(hospital, dict(message.content[RECORD]))

    @staticmethod
    def _drop(waiting: dict[str, str], why: Mapping[str, str], found: Answers) -> None:
        for message_id, hospital in list(waiting.items()):
            if hospital in why:
                del waiting[message_id]
                found.lost[hospital] = why[hospital]
