"""The step ``federated``: a federation of the run's own, or one that stands and is handed the run.

A federation of the run's own is a SuperLink and a SuperNode a hospital, as processes of this
machine; or the SuperLink alone where the hospitals' SuperNodes come from pods of their own (the
step ``join``). Each process is told what its part needs and no more: a hospital's own table, key
and name; the server no table at all. TLS and node keys are on, as between machines.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path

from tasks.errors import ExitCode, FederationError, FedriskError
from tasks.federation.deployment.local import Deployment, deploy
from tasks.federation.deployment.processes import Processes, tail
from tasks.federation.deployment.termination import check_interrupted, interruptible
from tasks.federation.reporting import failure_of, tell_rounds
from tasks.federation.run_files import MODEL
from tasks.federation.server.outcome import Outcome
from tasks.federation.server_status import mark_ended, unmark_ended
from tasks.federation.standing.submission import hand_over
from tasks.files import write_atomically
from tasks.run.step import Context, Result
from tasks.telemetry.live import MlflowRounds, RoundSink
from tasks.telemetry.round_event import read_events

POLL = 0.2
SPARE = 60.0
"""Seconds beyond the run's deadline after which the server itself is taken for hanging."""
SHARE_EVERY = 1.0
"""Seconds between two looks at whether the checkpoint is newer than the shared one."""


def federated(context: Context) -> Result:
    """Train one model over all hospitals of the run.

    A second call with the same run goes on after the last checkpoint.

    Raises:
        FederationError: The federation could not start, or too few hospitals answered.
        DataError: A hospital's table or the checkpoint is not of this study.
    """
    standing = context.settings.federation == "standing"
    if not standing:
        # What a standing federation has left is the desk's to go on from, and none of this step's.
        context.run.fetch_step("federated")
    folder = context.run.folder("federated")
    sink = MlflowRounds(context.plan, context.settings)
    # An earlier try's, which may have been fetched with its checkpoint.
    unmark_ended(context.settings, context.run.run)
    with interruptible():
        try:
            if standing:
                outcome = hand_over(context, folder, sink)
            else:
                outcome = _own_federation(context, folder, sink)
        except FedriskError as error:
            if error.exit_code in (ExitCode.BAD_INPUT, ExitCode.REFUSED):
                # Hospitals whose pods wait for this server need not wait for another try. Where the
                # store is away, whoever started the step leaves the mark.
                with contextlib.suppress(FedriskError):
                    mark_ended(context.settings, context.run.run)
            raise
    figures = outcome.model_dump(mode="json", exclude={"notes"})
    events = read_events(folder / "rounds.jsonl")
    notes = [event.note for event in events if event.note.startswith(("resumed", "tried"))]
    return Result(
        files={
            "model": context.run.relative(folder / MODEL),
            "rounds": context.run.relative(folder / "rounds.jsonl"),
        },
        figures=figures,
        notes=[*notes, *outcome.notes, *sink.close()],
    )


def _own_federation(context: Context, folder: Path, sink: RoundSink) -> Outcome:
    processes = Processes()
    try:
        deployment = deploy(context, folder, processes)
        return _watch(context, deployment, processes, sink)
    finally:
        processes.end()
        # Keys, and the path of every hospital's table: of no use after the run.
        shutil.rmtree(folder / "private", ignore_errors=True)


def _watch(
    context: Context, deployment: Deployment, processes: Processes, sink: RoundSink
) -> Outcome:
    """Print rounds as they come and see to dead processes, until the server has ended."""
    plan = context.study.federation
    end = time.monotonic() + plan.deadlines.ready + plan.deadlines.run + SPARE
    rounds, told, gone = (
        deployment.folder / "rounds.jsonl",
        deployment.known_rounds,
        dict[str, str](),
    )
    shared = _Shared(context, deployment.folder / "checkpoint.npz")
    while True:
        check_interrupted()
        done = deployment.outcome.exists()
        told = tell_rounds(rounds, told, sink)
        shared.look()
        if done:
            return Outcome.model_validate_json(deployment.outcome.read_bytes())
        if deployment.failure.exists():
            raise _failure(deployment)
        ended = processes.ended()
        for name, code in ended.items():
            if name in context.plan.hospitals and name not in gone:
                gone[name] = f"its SuperNode ended with code {code}"
                print(f"{name}: {gone[name]}; its log is {deployment.log(name)}", flush=True)
                write_atomically(deployment.gone, json.dumps(gone).encode())
        for name in ("superlink", "control"):
            if ended.get(name, 0) != 0 or (name == "superlink" and name in ended):
                if deployment.failure.exists():
                    raise _failure(deployment)
                raise FederationError(
                    f"the federation's {name} ended with code {ended[name]}; its log "
                    f"{deployment.log(name)} ends:\n{tail(deployment.log(name))}"
                )
        if time.monotonic() > end:
            raise FederationError(
                f"the server has not ended {SPARE:g} s after the run's deadline; its log "
                f"{deployment.log('superlink')} ends:\n{tail(deployment.log('superlink'))}"
            )
        time.sleep(POLL)


class _Shared:
    """Shares the checkpoint whenever it is new, so that another machine can go on from it."""

    def __init__(self, context: Context, checkpoint: Path) -> None:
        self._context, self._checkpoint = context, checkpoint
        self._next, self._known = 0.0, 0.0

    def look(self) -> None:
        if time.monotonic() < self._next or not self._context.settings.store:
            return
        self._next = time.monotonic() + SHARE_EVERY
        if self._checkpoint.exists() and self._checkpoint.stat().st_mtime != self._known:
            self._known = self._checkpoint.stat().st_mtime
            self._context.run.upload_step("federated")


def _failure(deployment: Deployment) -> FedriskError:
    log = deployment.log("superlink")
    return failure_of(deployment.failure.read_bytes(), f"the log {log} ends:\n{tail(log)}")
