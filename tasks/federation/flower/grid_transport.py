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

from tasks.federation.messages import FORMS, Question, Task
from tasks.federation.server.transport import REPLY_POLL, Replies
from tasks.federation.wire import size_of

if TYPE_CHECKING:
    from flwr.serverapp import Grid

LATE_GRACE = 3.0
"""Extra wait, in seconds, for hospitals that missed their last n deadlines, once all others have
replied: LATE_GRACE / n**2."""
NODES_EVERY = 5.0
"""Seconds between two looks at which SuperNodes are connected."""
RECORD = "fedrisk"
UNANSWERED = (3, 4)
"""Flower's codes for a message or a reply that has expired or is not there."""


class GridTransport:
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
        """See ``Transport.present``."""
        connected = set(self._grid.get_node_ids())
        gone = self.gone()
        return {h for h, node in self._nodes.items() if node in connected and h not in gone}

    def gone(self) -> dict[str, str]:
        """See ``Transport.gone``."""
        if not self._gone.exists():
            return {}
        found: dict[str, str] = json.loads(self._gone.read_bytes())
        return found

    def ask(
        self,
        question: Question,
        tasks: Mapping[str, Task],
        *,
        deadline: float,
        missed: Mapping[str, int] | None = None,
        needed: int = 1,
    ) -> Replies:
        """See ``Transport.ask``."""
        end = time.monotonic() + deadline
        found = Replies()
        waiting = self._push(question, tasks, deadline, found)
        grace, look = float("inf"), time.monotonic() + NODES_EVERY
        while waiting:
            for message in self._grid.pull_messages(list(waiting)):
                hospital = waiting.pop(message.metadata.reply_to_message_id, None)
                if hospital is not None:
                    self._add(message, hospital, found)
            self._drop(waiting, self.gone(), found)
            now = time.monotonic()
            if now > look:
                connected, look = self.present(), now + NODES_EVERY
                away = {h for h in waiting.values() if h not in connected}
                self._drop(waiting, dict.fromkeys(away, "its SuperNode is not connected"), found)
            counts = [(missed or {}).get(hospital, 0) for hospital in waiting.values()]
            if counts and min(counts) > 0 and len(found.answers) >= needed:
                grace = min(grace, now + LATE_GRACE / min(counts) ** 2)
            if now > min(end, grace):
                break
            time.sleep(REPLY_POLL)
        for hospital in waiting.values():
            found.time_out(hospital)
        return found

    def _push(
        self, question: Question, tasks: Mapping[str, Task], deadline: float, found: Replies
    ) -> dict[str, str]:
        """Send, and return which message waits for which hospital."""
        from flwr.app import ConfigRecord, Message, RecordDict

        names = [name for name in sorted(tasks) if name in self._nodes]
        found.failed |= dict.fromkeys(set(tasks) - set(names), "its key is not registered")
        messages = []
        for name in names:
            wire = tasks[name].encode()
            found.bytes_down += size_of(wire)
            messages.append(
                Message(
                    RecordDict({RECORD: ConfigRecord(wire)}),
                    dst_node_id=self._nodes[name],
                    message_type=FORMS[question].flower,
                    # A message that comes too late is not worth a training.
                    ttl=deadline,
                    group_id=str(tasks[name].round),
                )
            )
        ids = list(self._grid.push_messages(messages))
        waiting: dict[str, str] = {}
        for name, message_id in zip(names, ids or [""] * len(names), strict=True):
            if message_id:
                waiting[message_id] = name
            else:
                found.failed[name] = "the SuperLink did not take the message"
        return waiting

    def _add(self, message: Any, hospital: str, found: Replies) -> None:
        if not message.has_error():
            found.add(hospital, _record_of(message))
        elif int(message.error.code) in UNANSWERED:
            found.time_out(hospital)
        else:
            # Flower's reasons may quote an exception of the hospital: only its code is passed on.
            found.failed[hospital] = (
                f"Flower error {int(message.error.code)}; see the hospital's log"
            )

    @staticmethod
    def _drop(waiting: dict[str, str], why: Mapping[str, str], found: Replies) -> None:
        for message_id, hospital in list(waiting.items()):
            if hospital in why:
                del waiting[message_id]
                found.failed[hospital] = why[hospital]


def _record_of(message: Any) -> dict[str, Any]:
    """The message's fields; none where it has no record of ours, which no answer may lack."""
    return dict(message.content[RECORD]) if RECORD in message.content else {}
