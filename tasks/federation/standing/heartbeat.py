"""Signs of life: whether a step that has handed a run over still waits for it.

Only a step that ends takes its request back; one that was killed does not. So a step that waits
leaves a sign beside its request, another one every few seconds, and the desk counts, by its own
clock, for how long it has seen none: the clocks of two machines may differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tasks.objects import put

EVERY = 15.0
"""Seconds between two signs of a step."""


class Signing:
    """The step's side."""

    def __init__(self, store: str, key: str, attempt: str) -> None:
        """Say where the signs go; none is left yet.

        Args:
            store: The store.
            key: The sign's own object: an attempt that has yet to learn of a newer one would
                otherwise write over that one's request.
            attempt: Whose signs they are.
        """
        self._store, self._key, self._attempt = store, key, attempt
        self._number, self._next = 0, 0.0

    def sign(self) -> None:
        """Leave a sign if it is time for one.

        Raises:
            StoreUnavailable: The store does not answer; the next call tries again.
        """
        now = time.monotonic()
        if self._number and now < self._next:
            return
        self._number += 1
        put(self._store, self._key, f"{self._attempt} {self._number}".encode())
        self._next = now + EVERY


@dataclass
class _Heard:
    sign: bytes
    since: float
    waits: bool


class Signs:
    """The desk's side."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is heard yet.

        Args:
            patience: Seconds without another sign after which nobody waits for a run.
            clock: Seconds.
        """
        self._patience, self._clock = patience, clock
        self._heard: dict[str, _Heard] = {}
        self._began = False

    def hear(self, run: str, sign: bytes) -> None:
        """Take a run's newest sign.

        Args:
            run: The run.
            sign: Its sign; empty where there is none.
        """
        before = self._heard.get(run)
        if before is None or before.sign != sign:
            # A request that lay there when the desk began may be of a step that has died.
            waits = self._began or before is not None
            self._heard[run] = _Heard(sign, self._clock(), waits)

    def keep(self, runs: Collection[str]) -> None:
        """Forget all but these; whatever is new from now on is of a step that waits.

        Args:
            runs: All that are asked for.
        """
        self._heard = {run: heard for run, heard in self._heard.items() if run in runs}
        self._began = True

    def excuse(self, runs: Collection[str] | None = None) -> None:
        """Begin to count anew: while the store is away, no sign can be seen.

        Args:
            runs: Of which runs; None for all.
        """
        for run, heard in self._heard.items():
            if runs is None or run in runs:
                heard.since = self._clock()

    def waits(self, run: str) -> bool:
        """Whether a step has shown that it waits for the run.

        Args:
            run: The run.
        """
        return run in self._heard and self._heard[run].waits and not self.silent(run)

    def silent(self, run: str) -> bool:
        """Whether there was no sign for so long that nobody waits for the run.

        Args:
            run: The run.
        """
        heard = self._heard.get(run)
        if heard is None or self._clock() - heard.since <= self._patience:
            return False
        heard.waits = False
        return True
