"""Submit a run to a standing federation and wait for its results: all through the store.

The step leaves a request; the SuperLink's dispatcher (``dispatcher.py``) starts the run, and puts
rounds, checkpoint and the end where the step looks for them. The SuperLink's control API is not
needed. While it waits, the step leaves heartbeats (``heartbeat.py``), without which the dispatcher
stops the run.

What the dispatcher has put into the store is the dispatcher's: the step fetches it and never writes
it, so that an attempt that fails cannot put an old checkpoint over a newer one. Each attempt of the
step has an id of its own, and believes only what was answered to that.
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
from tasks.federation.federation_run import FederationRun
from tasks.federation.reporting import failure_of, report_rounds
from tasks.federation.run_files import CHECKPOINT, FAILURE, MODEL, OUTCOME, PROGRESS, ROUNDS
from tasks.federation.server.checkpoint import fingerprint_of
from tasks.federation.server.outcome import Outcome
from tasks.federation.standing.heartbeat import Heartbeat
from tasks.federation.standing.request import (
    ACCEPTED,
    DEADLINE_SLACK,
    REQUESTS,
    STORE_AWAY,
    FederationRequest,
    attempt_of,
    heartbeat_of,
)
from tasks.files import write_atomically
from tasks.objects import get, put, remove
from tasks.run.step import Context
from tasks.run.steps import CONSORTIUM
from tasks.telemetry.live import RoundSink

RESULT_POLL = 1.0
ACCEPT_WITHIN = 90.0
"""Seconds in which a request must be accepted, without those of a store that is away."""


def submit(run: FederationRun, context: Context, folder: Path, sink: RoundSink) -> Outcome:
    """Have a standing federation train the run.

    Args:
        run: The run.
        context: The step's.
        folder: The step's folder.
        sink: Gets each round.

    Raises:
        SettingsError: There is no store to submit it through.
        FederationError: It was not accepted, the federation failed, or another attempt of the step
            has taken the run over.
        StoreUnavailable: The store was away for too long.
    """
    if not context.settings.store:
        raise SettingsError(
            "FEDRISK_FEDERATION=standing needs FEDRISK_STORE: the run is submitted through it."
        )
    context.run.skip_upload("federated")
    for name in (MODEL, *PROGRESS):
        # Of an earlier attempt on this machine: what counts is in the store.
        (folder / name).unlink(missing_ok=True)
    request = FederationRequest(
        run=run.run,
        attempt=secrets.token_hex(8),
        config=run.server_config({}, shared=True),
    )
    waiting = _Waiting(context, folder, sink, request)
    try:
        waiting.ask()
        return waiting.wait()
    finally:
        waiting.withdraw()


class _Waiting:
    """One attempt's side of a submission."""

    def __init__(
        self, context: Context, folder: Path, sink: RoundSink, request: FederationRequest
    ) -> None:
        self._context, self._folder, self._sink, self._request = context, folder, sink, request
        self._store, self._accepted, self._reported = context.settings.store, False, 0
        self._base = f"{CONSORTIUM}/{request.run}/files/federated"
        self._key = f"{REQUESTS}/{request.run}.json"
        self._heartbeat = Heartbeat(self._store, heartbeat_of(request.run), request.attempt)

    def ask(self) -> None:
        """Leave the request; rounds that an earlier attempt has reported are not reported again."""
        kept = get(self._store, f"{self._base}/{CHECKPOINT}")
        if kept is not None and fingerprint_of(kept) == self._request.config.fingerprint:
            self._reported = self._report_rounds(None)
        for stale in (OUTCOME, FAILURE, ACCEPTED):
            remove(self._store, f"{self._base}/{stale}")
        # Before the request, so that this does not count as one whose step has long been silent.
        self._heartbeat.beat()
        put(self._store, self._key, self._request.model_dump_json().encode())

    def wait(self) -> Outcome:
        """Look once a second until it is known how the run ended."""
        waits = self._context.study.federation.deadlines
        heard = looked = time.monotonic()
        answered, away = 0.0, False
        while True:
            check_interrupted()
            try:
                self._heartbeat.beat()
                ended = self._look()
                heard, away = time.monotonic(), False
            except StoreUnavailable as error:
                if time.monotonic() - heard > STORE_AWAY:
                    raise
                if not away:
                    print(f"{error} The run waits for it, and the step looks again.", flush=True)
                ended, away = None, True
            if isinstance(ended, FedriskError):
                raise ended
            if ended is not None:
                return ended
            # While the store is away, the dispatcher can neither see the request nor answer.
            now = time.monotonic()
            answered, looked = answered + (0.0 if away else now - looked), now
            if answered > ACCEPT_WITHIN and not self._accepted:
                raise FederationError(
                    f"no standing federation took the run up within {ACCEPT_WITHIN:g} s. Is the "
                    f"SuperLink up, and does it look at the same store ({self._store})?"
                )
            if answered > waits.ready + waits.run + ACCEPT_WITHIN + DEADLINE_SLACK:
                raise FederationError(
                    "the standing federation has not ended the run within its deadlines; see the "
                    "SuperLink's log."
                )
            time.sleep(RESULT_POLL)

    def _look(self) -> Outcome | FedriskError | None:
        if self._accepted:  # until then, rounds may be those of other tables
            self._reported = self._report_rounds(self._sink)
        outcome, failure = self._said(OUTCOME), self._said(FAILURE)
        if outcome is not None:
            found = Outcome.model_validate(outcome["outcome"])
            # The outcome is put last, so all the rest is there by now.
            self._reported = self._report_rounds(self._sink)
            self._context.run.refresh(self._context.run.relative(self._folder / MODEL))
            return found
        if failure is not None:
            # Returned: that the federation's store was away is not that this step's is.
            return failure_of(json.dumps(failure).encode(), "the SuperLink's log has the rest")
        taken = get(self._store, f"{self._base}/{ACCEPTED}")
        if self._accepted and taken not in (None, self._request.attempt.encode()):
            raise FederationError("another attempt of this step has taken the run over.")
        self._accepted = self._accepted or taken == self._request.attempt.encode()
        return None

    def _said(self, name: str) -> dict[str, Any] | None:
        content = get(self._store, f"{self._base}/{name}")
        if content is None:
            return None
        # What does not say whose it is came after the stale ones were removed, so it is ours.
        if attempt_of(content) not in ("", self._request.attempt):
            return None
        found: dict[str, Any] = json.loads(content)
        return found

    def _report_rounds(self, sink: RoundSink | None) -> int:
        rounds = get(self._store, f"{self._base}/{ROUNDS}")
        if rounds is None:
            return self._reported
        write_atomically(self._folder / ROUNDS, rounds)
        return report_rounds(self._folder / ROUNDS, self._reported, sink)

    def withdraw(self) -> None:
        """Take the request back: without it the dispatcher stops the run.

        Nothing trains for a step that has ended, but a newer attempt's request is not this one's.
        """
        with contextlib.suppress(StoreUnavailable):
            newest = attempt_of(get(self._store, self._key) or b"")
            if newest in ("", self._request.attempt):
                remove(self._store, heartbeat_of(self._request.run))
            if newest == self._request.attempt:
                remove(self._store, self._key)
