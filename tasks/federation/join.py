"""The step ``join``: a hospital lets a run use one version of its own table, and takes part.

The hospital reads the study that the run has frozen, sees whether it has approved it, and leaves
for its SuperNode what that may use. Where each run has a federation of its own in pods, the step is
also the SuperNode: it serves the run until the server has ended.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from tasks.federation.certificates import write_private
from tasks.federation.hospital import check_approved, hospital_config
from tasks.federation.supernode import SuperNode, serve
from tasks.federation.termination import interruptible
from tasks.manifest import RunFolder
from tasks.objects import StoreUnavailable
from tasks.step import Context, Result
from tasks.store import open_run

ENDED = "files/federated/ended"
"""Left by the server that will not come back: the hospitals need not wait."""
RESTART = 240.0
"""Seconds, beyond the deadline to be ready, in which a lost server may be started again."""
LOOK = 3.0


def join(context: Context) -> Result:
    """Let the hospital's SuperNode use its gold table in this run.

    Raises:
        NotApproved: The hospital has not approved the study.
        DataError: The step ``features`` has left no table.
        FederationError: The run's server did not let the hospital in, or was gone for too long.
    """
    own = context.own
    table = context.run.read("features", own).tables["gold"]
    config = hospital_config(context, own, table)
    check_approved(config)
    path = context.run.folder("join", own) / "hospital.json"
    write_private(path, config.model_dump_json().encode())
    figures = {"approved": bool(config.approved), "starts": 0}
    if context.settings.superlink and context.settings.federation == "run":
        figures["starts"] = take_part(context, path)
    return Result(
        tables={"gold": table}, files={"config": context.run.relative(path)}, figures=figures
    )


def take_part(context: Context, config: Path) -> int:
    """Be the hospital's SuperNode until the run's server has ended.

    Args:
        context: The step's.
        config: The hospital's configuration.

    Returns:
        How often the SuperNode was started.
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
    """Whether the server has ended, asked of the store every few seconds."""

    def __init__(self, run: RunFolder, context: Context) -> None:
        self._run, self._context, self._next, self._over = run, context, 0.0, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._over and now > self._next:
            self._next = now + LOOK
            run = open_run(self._context.settings, self._run.run, self._context.own)
            # A store that is away for a moment says nothing about the server.
            with contextlib.suppress(StoreUnavailable):
                self._over = run.find("federated") is not None or run.have(ENDED).exists()
        return self._over
