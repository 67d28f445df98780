"""Heartbeats: whether a step that has submitted a run still waits for it.

Only a step that ends takes its request back; one that was killed does not. So a step that waits
leaves a heartbeat beside its request every few seconds, and the dispatcher counts, by its own
clock, for how long it has seen none: the clocks of two machines may differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tasks.objects import put

BEAT_EVERY = 15.0
"""Seconds between two heartbeats of a step."""


class Heartbeat:
    """The step's side."""

    def __init__(self, store: str, key: str, attempt: str) -> None:
        """Say where the heartbeats go; none is left yet.

        Args:
            store: The store.
            key: The heartbeat's own object: an attempt that has yet to learn of a newer one would
                otherwise overwrite that one's request.
            attempt: Whose they are.
        """
        self._store, self._key, self._attempt = store, key, attempt
        self._number, self._next = 0, 0.0

    def beat(self) -> None:
        """Leave a heartbeat if it is time for one.

        Raises:
            StoreUnavailable: The store does not answer; the next call tries again.
        """
        now = time.monotonic()
        if self._number and now < self._next:
            return
        self._number += 1
        put(self._store, self._key, f"{self._attempt} {self._number}".encode())
        self._next = now + BEAT_EVERY


@dataclass
class _Seen:
    sign: bytes
    since: float
    waits: bool


class Heartbeats:
    """The dispatcher's side."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        """None is seen yet.

        Args:
            patience: Seconds without another heartbeat after which no step waits for a run.
            clock: Seconds.
        """
        self._patience, self._clock = patience, clock
        self._seen: dict[str, _Seen] = {}
        self._began = False

    def see(self, run: str, sign: bytes) -> None:
        """Note a run's newest heartbeat.

        Args:
            run: The run.
            sign: Its heartbeat; empty where there is none.
        """
        before = self._seen.get(run)
        if before is None or before.sign != sign:
            # A request that lay there when the dispatcher began may be of a step that has died.
            waits = self._began or before is not None
            self._seen[run] = _Seen(sign, self._clock(), waits)

    def keep(self, runs: Collection[str]) -> None:
        """Forget all but these; whatever is new from now on is of a step that waits.

        Args:
            runs: All that are asked for.
        """
        self._seen = {run: heard for run, heard in self._seen.items() if run in runs}
        self._began = True

    def reset(self, runs: Collection[str] | None = None) -> None:
        """Count from now on: while the store is away, no heartbeat can be seen.

        Args:
            runs: Of which runs; None for all.
        """
        for run, heard in self._seen.items():
            if runs is None or run in runs:
                heard.since = self._clock()

    def waits(self, run: str) -> bool:
        """Whether a step has shown that it waits for the run.

        Args:
            run: The run.
        """
        return run in self._seen and self._seen[run].waits and not self.silent(run)

    def silent(self, run: str) -> bool:
        """Whether there was no heartbeat for so long that no step waits for the run.

        Args:
            run: The run.
        """
        heard = self._seen.get(run)
        if heard is None or self._clock() - heard.since <= self._patience:
            return False
        heard.waits = False
        return True
