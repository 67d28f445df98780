"""The step ``federated``: a federation of the run's own, or a standing one that trains it.

A federation of the run's own is a SuperLink and a SuperNode a hospital, as processes of this
machine; or the SuperLink alone where the hospitals' SuperNodes come from pods of their own (the
step ``join``). Each process gets what its part needs and no more: a hospital's own table, key and
name; the server no table at all. TLS and node keys are on, as between machines.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tasks.errors import ExitCode, FederationError, FedriskError
from tasks.federation.deployment.local import Deployment, deploy
from tasks.federation.deployment.termination import check_interrupted, interruptible
from tasks.federation.federation_run import FederationRun
from tasks.federation.reporting import failure_of, report_rounds
from tasks.federation.run_files import CHECKPOINT, MODEL, PRIVATE, ROUNDS
from tasks.federation.server.outcome import Outcome
from tasks.federation.server_status import mark_ended, unmark_ended
from tasks.federation.standing.submission import submit
from tasks.files import write_atomically
from tasks.launch.process_tree import ProcessTree, tail
from tasks.run.step import Context, Result
from tasks.telemetry.live import MlflowRounds, RoundSink
from tasks.telemetry.round_event import read_events

WATCH_POLL = 0.2
HANGS_AFTER = 60.0
"""Seconds beyond the run's deadline after which the server itself is taken for hanging."""


def federated(context: Context) -> Result:
    """Train one model over all hospitals of the run.

    A second call with the same run goes on after the last checkpoint.

    Raises:
        FederationError: The federation could not start, or too few hospitals answered.
        DataError: A hospital's table or the checkpoint is not of this study.
    """
    standing = context.settings.federation == "standing"
    if not standing:
        # What a standing federation has left is its dispatcher's to go on from, not this step's.
        context.run.fetch_step("federated")
    folder = context.run.folder("federated")
    sink = MlflowRounds(context.plan, context.settings)
    # An earlier attempt's, which may have been fetched with its checkpoint.
    unmark_ended(context.settings, context.run.run)
    try:
        outcome = _trained(context, folder, sink, standing=standing)
    except BaseException:
        # Its thread ends, without what is left to log.
        sink.close(0)
        raise
    figures = outcome.model_dump(mode="json", exclude={"notes"})
    events = read_events(folder / ROUNDS)
    notes = [event.note for event in events if event.note.startswith(("resumed", "tried"))]
    return Result(
        files={
            "model": context.run.relative(folder / MODEL),
            "rounds": context.run.relative(folder / ROUNDS),
        },
        figures=figures,
        notes=[*notes, *outcome.notes, *sink.close()],
    )


def _trained(context: Context, folder: Path, sink: RoundSink, *, standing: bool) -> Outcome:
    with interruptible():
        try:
            run = FederationRun.of(context)
            train = submit if standing else _own_federation
            return train(run, context, folder, sink)
        except FedriskError as error:
            if error.exit_code in (ExitCode.BAD_INPUT, ExitCode.REFUSED):
                # Hospitals whose pods wait for this server need not wait for another attempt. Where
                # the store is away, the step's launcher reports it.
                with contextlib.suppress(FedriskError):
                    mark_ended(context.settings, context.run.run)
            raise


def _own_federation(run: FederationRun, context: Context, folder: Path, sink: RoundSink) -> Outcome:
    processes = ProcessTree(force=True)
    try:
        deployment = deploy(run, context.settings, folder, processes)
        return _watch(run, deployment, processes, sink, _sharing(context, deployment))
    finally:
        processes.end()
        # Keys, and the path of every hospital's table: of no use after the run.
        shutil.rmtree(folder / PRIVATE, ignore_errors=True)


def _watch(
    run: FederationRun,
    deployment: Deployment,
    processes: ProcessTree,
    sink: RoundSink,
    share: Callable[[], None],
) -> Outcome:
    """Print rounds as they come and watch the processes, until the server has ended."""
    deadlines = run.study.federation.deadlines
    end = time.monotonic() + deadlines.ready + deadlines.run + HANGS_AFTER
    reported, gone = deployment.known_rounds, dict[str, str]()
    while True:
        check_interrupted()
        done = deployment.outcome.exists()
        reported = report_rounds(deployment.folder / ROUNDS, reported, sink)
        share()
        if done:
            return Outcome.model_validate_json(deployment.outcome.read_bytes())
        if deployment.failure.exists():
            raise _failure(deployment)
        ended = processes.ended()
        for name, code in ended.items():
            if name in run.hospitals and name not in gone:
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
                f"the server has not ended {HANGS_AFTER:g} s after the run's deadline; its log "
                f"{deployment.log('superlink')} ends:\n{tail(deployment.log('superlink'))}"
            )
        time.sleep(WATCH_POLL)


def _sharing(context: Context, deployment: Deployment) -> Callable[[], None]:
    """Put each new checkpoint into the store, and let the server know, which waits for it."""
    path, known = deployment.folder / CHECKPOINT, 0

    def share() -> None:
        nonlocal known
        if not context.settings.store or not path.exists() or path.stat().st_mtime_ns == known:
            return
        known = path.stat().st_mtime_ns
        context.run.upload_step("federated")
        write_atomically(deployment.stored, str(known).encode())

    return share


def _failure(deployment: Deployment) -> FedriskError:
    log = deployment.log("superlink")
    return failure_of(deployment.failure.read_bytes(), f"the log {log} ends:\n{tail(log)}")
