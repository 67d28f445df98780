"""Hand a run over to a standing federation, and wait for what comes back: all through the store.

The step leaves a request; the SuperLink's desk (``desk.py``) starts the run, and puts rounds,
checkpoint and the end where the step looks for them. Nobody needs the SuperLink's control API.
While it waits, the step leaves signs of life (``signs.py``), without which the desk stops the run.

What the desk has put into the store is the desk's: the step fetches it and never writes it, so that
an attempt that fails cannot put an old checkpoint over a newer one. Each attempt of the step has an
id of its own, and believes of the desk only what was said to that.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from pathlib import Path
from typing import Any

from tasks.errors import FederationError, FedriskError, SettingsError, StoreUnavailable
from tasks.federation.deployment.termination import check_interrupted
from tasks.federation.reporting import failure_of, tell_rounds
from tasks.federation.run_files import CHECKPOINT, FAILURE, MODEL, OUTCOME, PROGRESS, ROUNDS
from tasks.federation.server.checkpoint import fingerprint, fingerprint_of
from tasks.federation.server.outcome import Outcome
from tasks.federation.standing.heartbeat import Signing
from tasks.federation.standing.request import (
    AWAY,
    REQUESTS,
    SPARE,
    TAKEN,
    FederationRequest,
    attempt_of,
    sign_of,
)
from tasks.files import write_atomically
from tasks.objects import get, put, remove
from tasks.run.step import Context
from tasks.run.steps import CONSORTIUM
from tasks.telemetry.live import RoundSink

POLL = 1.0
START = 90.0
"""Seconds in which the desk must have taken a request up, without those of a store that is away."""


def hand_over(context: Context, folder: Path, sink: RoundSink) -> Outcome:
    """Have a standing federation train the run.

    Args:
        context: The step's.
        folder: The step's folder.
        sink: Told each round.

    Raises:
        SettingsError: There is no store to hand it over through.
        FederationError: Nobody took the request up, the federation failed, or another attempt of
            the step has taken the run over.
        StoreUnavailable: The store was away for too long.
    """
    store, run = context.settings.store, context.run.run
    if not store:
        raise SettingsError(
            "FEDRISK_FEDERATION=standing needs FEDRISK_STORE: the run is handed over through it."
        )
    tables = {
        name: context.run.read("features", name).tables["gold"] for name in context.plan.hospitals
    }
    context.run.skip_upload("federated")
    for name in (MODEL, *PROGRESS):
        # Of an earlier attempt on this machine: what counts is in the store.
        (folder / name).unlink(missing_ok=True)
    asked = FederationRequest(
        run=run,
        attempt=secrets.token_hex(8),
        study=context.study,
        hospitals=context.plan.hospitals,
        fingerprint=fingerprint(context, tables),
    )
    waiting = _Waiting(context, folder, sink, asked)
    try:
        waiting.ask()
        return waiting.wait()
    finally:
        waiting.withdraw()


class _Waiting:
    """One attempt's side of the handing over."""

    def __init__(
        self, context: Context, folder: Path, sink: RoundSink, asked: FederationRequest
    ) -> None:
        self._context, self._folder, self._sink, self._asked = context, folder, sink, asked
        self._store, self._taken, self._told = context.settings.store, False, 0
        self._base = f"{CONSORTIUM}/{asked.run}/files/federated"
        self._request = f"{REQUESTS}/{asked.run}.json"
        self._signing = Signing(self._store, sign_of(asked.run), asked.attempt)

    def ask(self) -> None:
        """Leave the request; rounds that an earlier attempt has told are not told again."""
        kept = get(self._store, f"{self._base}/{CHECKPOINT}")
        if kept is not None and fingerprint_of(kept) == self._asked.fingerprint:
            self._told = self._tell_rounds(None)
        for stale in (OUTCOME, FAILURE, TAKEN):
            remove(self._store, f"{self._base}/{stale}")
        # Before the request, so that this is not taken for one whose step has long been silent.
        self._signing.sign()
        put(self._store, self._request, self._asked.model_dump_json().encode())

    def wait(self) -> Outcome:
        """Look once a second until the desk has said how the run ended."""
        waits = self._context.study.federation.deadlines
        heard = looked = time.monotonic()
        answered, away = 0.0, False
        while True:
            check_interrupted()
            try:
                self._signing.sign()
                ended = self._look()
                heard, away = time.monotonic(), False
            except StoreUnavailable as error:
                if time.monotonic() - heard > AWAY:
                    raise
                if not away:
                    print(f"{error} The run trains on, and the step looks again.", flush=True)
                ended, away = None, True
            if isinstance(ended, FedriskError):
                raise ended
            if ended is not None:
                return ended
            # While the store is away, the desk can neither see the request nor answer.
            now = time.monotonic()
            answered, looked = answered + (0.0 if away else now - looked), now
            if answered > START and not self._taken:
                raise FederationError(
                    f"no standing federation took the run up within {START:g} s. Is the SuperLink "
                    f"up, and does it look at the same store ({self._store})?"
                )
            if answered > waits.ready + waits.run + START + SPARE:
                raise FederationError(
                    "the standing federation has not ended the run within its deadlines; see the "
                    "SuperLink's log."
                )
            time.sleep(POLL)

    def _look(self) -> Outcome | FedriskError | None:
        if self._taken:  # until then, rounds may be those of other tables
            self._told = self._tell_rounds(self._sink)
        outcome, failure = self._said(OUTCOME), self._said(FAILURE)
        if outcome is not None:
            found = Outcome.model_validate(outcome["outcome"])
            # The outcome is put last, so all the rest is there by now.
            self._told = self._tell_rounds(self._sink)
            self._context.run.refresh(self._context.run.relative(self._folder / MODEL))
            return found
        if failure is not None:
            # Returned: that the federation's store was away is not that this step's is.
            return failure_of(json.dumps(failure).encode(), "the SuperLink's log has the rest")
        taken = get(self._store, f"{self._base}/{TAKEN}")
        if self._taken and taken not in (None, self._asked.attempt.encode()):
            raise FederationError("another attempt of this step has taken the run over.")
        self._taken = self._taken or taken == self._asked.attempt.encode()
        return None

    def _said(self, name: str) -> dict[str, Any] | None:
        content = get(self._store, f"{self._base}/{name}")
        if content is None:
            return None
        # What does not say whose it is came after the stale ones were removed, so it is ours.
        if attempt_of(content) not in ("", self._asked.attempt):
            return None
        found: dict[str, Any] = json.loads(content)
        return found

    def _tell_rounds(self, sink: RoundSink | None) -> int:
        rounds = get(self._store, f"{self._base}/{ROUNDS}")
        if rounds is None:
            return self._told
        write_atomically(self._folder / ROUNDS, rounds)
        return tell_rounds(self._folder / ROUNDS, self._told, sink)

    def withdraw(self) -> None:
        """Take the request back: without it the desk stops the run.

        Nothing trains for a step that has ended, but a newer attempt's request is not this one's.
        """
        with contextlib.suppress(StoreUnavailable):
            newest = attempt_of(get(self._store, self._request) or b"")
            if newest in ("", self._asked.attempt):
                remove(self._store, sign_of(self._asked.run))
            if newest == self._asked.attempt:
                remove(self._store, self._request)
