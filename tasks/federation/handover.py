"""Hand a run over to a standing federation, and wait for what comes back: all through the store.

The step leaves a request; the SuperLink's desk (``standing.py``) starts the run, and puts rounds,
checkpoint and the end where the step looks for them. Nobody needs the SuperLink's control API.
"""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.errors import FederationError, SettingsError
from tasks.federation.closing import Outcome
from tasks.federation.deployment import FAILURE, OUTCOME, fingerprint
from tasks.federation.termination import check_interrupted
from tasks.federation.told import failure_of, tell_rounds
from tasks.manifest import write_atomically
from tasks.objects import get, put, remove
from tasks.step import Context
from tasks.store import CONSORTIUM
from tasks.study import Study
from tasks.telemetry.live import RoundSink

REQUESTS = f"{CONSORTIUM}/requests"
POLL = 1.0
START = 90.0
"""Seconds in which the desk must have taken a request up."""
SPARE = 60.0
TAKEN = "taken"


class FederationRequest(BaseModel):
    """A run that a standing federation is asked to train.

    Attributes:
        run: The run's id.
        study: The run's frozen study.
        hospitals: Those of the run.
        fingerprint: Of the study and the tables' versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    study: Study
    hospitals: list[str]
    fingerprint: str


def hand_over(context: Context, folder: Path, sink: RoundSink) -> Outcome:
    """Have a standing federation train the run.

    Args:
        context: The step's.
        folder: The step's folder.
        sink: Told each round.

    Raises:
        SettingsError: There is no store to hand it over through.
        FederationError: Nobody took the request up, or the federation failed.
    """
    store, run = context.settings.store, context.run.run
    if not store:
        raise SettingsError(
            "FEDRISK_FEDERATION=standing needs FEDRISK_STORE: the run is handed over through it."
        )
    base, request = f"{CONSORTIUM}/{run}/files/federated", f"{REQUESTS}/{run}.json"
    tables = {
        name: context.run.read("features", name).tables["gold"] for name in context.plan.hospitals
    }
    for stale in (OUTCOME, FAILURE, TAKEN):
        remove(store, f"{base}/{stale}")
    asked = FederationRequest(
        run=run,
        study=context.study,
        hospitals=context.plan.hospitals,
        fingerprint=fingerprint(context, tables),
    )
    waits = context.study.federation.deadlines
    began = time.monotonic()
    told = tell_rounds(folder / "rounds.jsonl", 0, None)
    put(store, request, asked.model_dump_json().encode())
    try:
        while True:
            check_interrupted()
            outcome, failure = (get(store, f"{base}/{name}") for name in (OUTCOME, FAILURE))
            rounds = get(store, f"{base}/rounds.jsonl")
            if rounds is not None:
                write_atomically(folder / "rounds.jsonl", rounds)
                told = tell_rounds(folder / "rounds.jsonl", told, sink)
            if outcome is not None:
                context.run.fetch("federated")
                return Outcome.model_validate_json(outcome)
            if failure is not None:
                raise failure_of(failure, "the SuperLink's log has the rest")
            waited = time.monotonic() - began
            if waited > START and get(store, f"{base}/{TAKEN}") is None:
                raise FederationError(
                    f"no standing federation took the run up within {START:g} s. Is the SuperLink "
                    f"up, and does it look at the same store ({store})?"
                )
            if waited > waits.ready + waits.run + START + SPARE:
                raise FederationError(
                    "the standing federation has not ended the run within its deadlines; see the "
                    "SuperLink's log."
                )
            time.sleep(POLL)
    finally:
        # Without its request the desk stops the run: nothing trains for a step that has ended.
        remove(store, request)
