"""The step ``join``: a hospital lets a run use one version of its own table, and takes part.

The hospital reads the study that the run has frozen, sees whether it has approved it, and leaves
for its SuperNode what that may use. Where each run has a federation of its own in pods, the step is
also the SuperNode: it serves the run until the server has ended.
"""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.errors import FedriskError, StoreUnavailable
from tasks.federation.deployment.certificates import write_private
from tasks.federation.deployment.supernode import SuperNode, serve
from tasks.federation.deployment.termination import interruptible
from tasks.federation.hospital.config import CONFIG, REFUSED, check_approved, hospital_config
from tasks.federation.server_status import ServerEnded, is_ended
from tasks.objects import remove
from tasks.run.folder import RunFolder
from tasks.run.step import Context, Result
from tasks.run.stored_run import lake_store, open_run

LASTS = timedelta(days=7)
"""How long, beyond the run's deadlines, a run may use the table: it may be resumed days later."""
RESTART = 240.0
"""Seconds, beyond the deadline to be ready, in which a lost server may be started again."""
STORE_POLL = 3.0


def join(context: Context) -> Result:
    """Let the hospital's SuperNode use its gold table in this run.

    Raises:
        NotApproved: The hospital has not approved the study.
        DataError: The step ``features`` has left no table.
        FederationError: The run's server did not let the hospital in, or was gone for too long.
        ServerEnded: The run's server has ended without a model and will not come back.
    """
    own = context.own
    table = context.run.read("features", own).tables["gold"]
    waits = context.study.federation.deadlines
    ends = datetime.now(UTC) + timedelta(seconds=waits.ready + waits.run) + LASTS
    config = hospital_config(
        context.settings, context.run.run, context.study, own, table
    ).model_copy(update={"ends": ends})
    folder = context.run.folder("join", own)
    path, refused = folder / CONFIG, folder / REFUSED
    # An earlier attempt's refusal is none of this one's, which may take a while.
    refused.unlink(missing_ok=True)
    if context.settings.store:
        remove(
            lake_store(context.settings, own), f"runs/{context.run.run}/files/join.{own}/{REFUSED}"
        )
    try:
        check_approved(config)
    except FedriskError as error:
        # For its standing SuperNode: the server need not wait for this hospital.
        write_private(refused, json.dumps({"reason": str(error)}).encode())
        raise
    write_private(path, config.model_dump_json().encode())
    figures = {"approved": bool(config.approved), "starts": 0}
    if context.settings.superlink and context.settings.federation == "run":
        figures["starts"] = take_part(context, path)
    return Result(
        tables={"gold": table}, files={"config": context.run.relative(path)}, figures=figures
    )


def take_part(context: Context, config: Path) -> int:
    """Be the hospital's SuperNode until the run's model is there.

    Args:
        context: The step's.
        config: The hospital's configuration.

    Returns:
        How often the SuperNode was started.

    Raises:
        FederationError: The run's server did not let the hospital in, or was gone for too long.
        ServerEnded: It has ended without a model. So the step leaves no manifest, and takes part
            again when the run is resumed.
    """
    waits = context.study.federation.deadlines
    folder = context.settings.home / "federation" / context.run.run / context.own
    node = SuperNode(context.settings, context.own, folder, config)
    over = _OverSometimes(context.run, context)
    with interruptible():
        try:
            patience = waits.ready + RESTART
            serve(node, over, patience, 2 * (waits.ready + waits.run) + RESTART)
        finally:
            node.end()
    return node.starts


class _OverSometimes:
    """Whether the server's work is done, asked of the store every few seconds."""

    def __init__(self, run: RunFolder, context: Context) -> None:
        self._run, self._context, self._next, self._over = run, context, 0.0, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._over and now > self._next:
            self._next = now + STORE_POLL
            run = open_run(self._context.settings, self._run.run, self._context.own)
            # A store that is away for a moment says nothing about the server.
            with contextlib.suppress(StoreUnavailable):
                self._over = run.find("federated") is not None
                if not self._over and is_ended(self._context.settings, self._run.run):
                    raise ServerEnded(
                        f"the server of run {self._run.run} has ended without a model and will not "
                        "come back: look at the step federated. When that is run again, run join "
                        "of every hospital again too."
                    )
        return self._over
