"""Dispatcher of a long-running SuperLink: starts submitted runs and publishes their results.

Keys lie in a folder (``key_registry.py``), requests in the store. Each request that appears is
started as a run, each that goes is stopped; what a run leaves is published in the store. A request
whose step has no heartbeat any more (``heartbeat.py``) counts as gone. A request carries the
attempt that left it, and so do the notes that it was accepted and how it ended: what belongs to an
earlier attempt of the step is never taken for the newest one's.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.errors import FederationError, FedriskError, SettingsError, StoreUnavailable
from tasks.federation.deployment.certificates import write_private
from tasks.federation.deployment.commands import copy_app
from tasks.federation.flower import control_cli as control
from tasks.federation.run_files import (
    CHECKPOINT,
    FAILURE,
    OUTCOME,
    PRIVATE,
    PROGRESS,
    SERVER,
    STORED,
)
from tasks.federation.server.checkpoint import fingerprint_of
from tasks.federation.standing.heartbeat import Heartbeats
from tasks.federation.standing.key_registry import RegisteredKeys
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
from tasks.objects import get, keys, put, remove
from tasks.run.folder import RUN_PATTERN
from tasks.run.steps import CONSORTIUM
from tasks.settings import Settings

log = logging.getLogger(__name__)

STATUS_EVERY = 10.0
"""Seconds between two questions to Flower whether a run still runs."""
SILENT = STORE_AWAY + 2 * DEADLINE_SLACK
"""Seconds without a heartbeat of its step after which a run is stopped: a step waits for a store
that is away for the first part, and asks for up to 35 s before it knows."""


@dataclass
class Standing:
    """One run that trains now.

    Attributes:
        request: The request, of the newest attempt.
        flower: Flower's id of the run.
        folder: Where its ServerApp leaves its files.
        shared: When each file that is in the store was written.
        looked: When Flower was last asked whether the run still runs.
    """

    request: FederationRequest
    flower: str
    folder: Path
    shared: dict[str, int] = field(default_factory=dict)
    looked: float = field(default_factory=time.monotonic)


class Dispatcher:
    """Watches keys and requests."""

    def __init__(
        self, settings: Settings, folder: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Say where to look.

        Args:
            settings: The store, and the folder of registered keys.
            folder: The dispatcher's own files.
            clock: Seconds, by which heartbeats are waited for.
        """
        self._store, self._folder = settings.store, folder
        self._keys = RegisteredKeys(Path(settings.registered), folder / "keys")
        self._heartbeats = Heartbeats(SILENT, clock)
        self._running: dict[str, Standing] = {}
        self._attempts: dict[str, str] = {}
        self._given_up: dict[str, str] = {}
        self._logged = ""

    def look(self) -> None:
        """Register new keys, start new requests, pass on what the runs have left.

        A store that does not answer is asked again at the next look. Whatever else goes wrong with
        a run is that run's failure: it ends neither the SuperLink nor another run.
        """
        self._keys.look()
        try:
            wanted = self._requests()
        except SettingsError:
            raise  # no later look would mend it
        except FedriskError as error:
            if str(error) != self._logged:
                log.warning("%s", error)
            self._logged = str(error)
            self._heartbeats.reset()
            return
        self._logged = ""
        self._given_up = {run: each for run, each in self._given_up.items() if run in wanted}
        for run in sorted(wanted):
            with self._seeing_to(run):
                self._heartbeats.see(run, get(self._store, heartbeat_of(run)) or b"")
        self._heartbeats.keep(wanted)
        silent = {run for run in wanted if self._heartbeats.silent(run)}
        for run in sorted(wanted - set(self._running)):
            with self._seeing_to(run):
                if self._heartbeats.waits(run):
                    self._start(run)
        for run, standing in list(self._running.items()):
            with self._seeing_to(run):
                self._see(standing, run in wanted - silent)
        for run in sorted(silent):
            with self._seeing_to(run):
                self._withdraw(run)

    @contextlib.contextmanager
    def _seeing_to(self, run: str) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable as error:
            log.warning("run %s: %s", run, error)
            self._heartbeats.reset([run])
        except Exception as error:
            log.exception("run %s is given up", run)
            kind = type(error).__name__ if isinstance(error, FedriskError) else "FederationError"
            self._forget(run)
            self._given_up[run] = self._attempts.get(run, "")
            with contextlib.suppress(FedriskError):  # its step will miss a deadline
                self._fail(run, kind, f"the SuperLink gave the run up: {error}")

    def _requests(self) -> set[str]:
        names = [key.rpartition("/")[2] for key in keys(self._store, REQUESTS)]
        runs = {name.removesuffix(".json") for name in names if name.endswith(".json")}
        return {run for run in runs if RUN_PATTERN.fullmatch(run) and ".." not in run}

    def _request(self, run: str) -> FederationRequest | None:
        """What is requested now; None where it was withdrawn or given up."""
        content = get(self._store, f"{REQUESTS}/{run}.json")
        if content is None:
            return None
        self._attempts[run] = attempt_of(content)
        if self._given_up.get(run) == self._attempts[run]:
            return None
        return FederationRequest.model_validate_json(content)

    def _start(self, run: str) -> None:
        request = self._request(run)
        if request is None:
            return
        if self._has_ended(run, request.attempt):
            return  # the step has yet to see how
        left = self._left(request)
        self._accept(request)
        folder = self._folder / "runs" / run
        shutil.rmtree(folder, ignore_errors=True)
        private = folder / PRIVATE
        private.mkdir(parents=True, mode=0o700)
        self._prepare(request, folder)
        for name, content in left.items():
            (folder / name).write_bytes(content)
        self._running[run] = Standing(request, control.submit(self._app(), private, run), folder)
        print(f"run {run}: started", flush=True)

    def _has_ended(self, run: str, attempt: str) -> bool:
        found = [get(self._store, f"{_base(run)}/{name}") for name in (OUTCOME, FAILURE)]
        return any(each is not None and attempt_of(each) == attempt for each in found)

    def _withdraw(self, run: str) -> None:
        """Take a request back in the place of its step, which has died."""
        content = get(self._store, f"{REQUESTS}/{run}.json")
        self._heartbeats.see(run, get(self._store, heartbeat_of(run)) or b"")
        if content is None or not self._heartbeats.silent(run):
            return  # another attempt came just now
        self._attempts[run] = attempt_of(content)
        if not self._has_ended(run, self._attempts[run]):
            # Should the step live after all (its machine slept), it need not wait any longer.
            why = f"no heartbeat of the step was seen for {SILENT:g} s, so its run was stopped"
            self._fail(run, "FederationError", f"{why}. Run the step again: it goes on.")
        for key in (heartbeat_of(run), f"{REQUESTS}/{run}.json"):
            remove(self._store, key)
        print(f"run {run}: its request is deleted, for its step has died", flush=True)

    def _left(self, request: FederationRequest) -> dict[str, bytes]:
        """What an earlier attempt has left to go on from, if it trained on the same tables.

        What it has left of others is deleted before the run is accepted, so that from then on the
        step finds this run's rounds and no other's.
        """
        found = {name: get(self._store, f"{_base(request.run)}/{name}") for name in PROGRESS}
        if fingerprint_of(found[CHECKPOINT] or b"") == request.config.fingerprint:
            return {name: content for name, content in found.items() if content is not None}
        if any(content is not None for content in found.values()):
            print(f"run {request.run}: what was left is of no use with these tables", flush=True)
        for name, content in found.items():
            if content is not None:
                remove(self._store, f"{_base(request.run)}/{name}")
        return {}

    def _accept(self, request: FederationRequest) -> None:
        put(self._store, f"{_base(request.run)}/{ACCEPTED}", request.attempt.encode())

    def _prepare(self, request: FederationRequest, folder: Path) -> None:
        known, config = self._keys.nodes, request.config
        nodes = {name: known[name] for name in config.hospitals if name in known}
        if len(nodes) < config.study.federation.min_hospitals:
            raise FederationError(
                f"{len(nodes)} of {len(config.hospitals)} hospitals are registered, and the study "
                f"needs {config.study.federation.min_hospitals}; missing: "
                f"{', '.join(sorted(set(config.hospitals) - set(nodes)))}."
            )
        config = config.model_copy(update={"nodes": nodes})
        write_private(folder / PRIVATE / SERVER, config.model_dump_json().encode())

    def _app(self) -> Path:
        app = self._folder / "app"
        if not app.exists():
            copy_app(app)
        return app

    def _see(self, standing: Standing, wanted: bool) -> None:
        run = standing.request.run
        newest = self._request(run) if wanted else None
        if newest is not None and newest.attempt != standing.request.attempt:
            if newest.model_copy(update={"attempt": standing.request.attempt}) != standing.request:
                print(f"run {run}: requested again, with another study or tables", flush=True)
                self._forget(run)
                self._start(run)
                return
            # The step was started again, and wants what trains already.
            standing.request = newest
            self._accept(newest)
            print(f"run {run}: goes on for another attempt of its step", flush=True)
        # Asked first: what a run leaves, it leaves before it ends.
        finished = self._finished(standing)
        ended = self._pass_on(standing)
        if ended:
            print(f"run {run}: ended with {', '.join(ended)}", flush=True)
        elif not wanted:
            print(f"run {run}: stopped, for no step waits for it", flush=True)
            self._forget(run)
        elif finished:
            self._fail(run, "FederationError", "the ServerApp ended without a word")
        else:
            return
        if run in self._running:
            del self._running[run]
            shutil.rmtree(standing.folder, ignore_errors=True)

    def pass_on_checkpoints(self) -> None:
        """Put new checkpoints into the store at once: their servers wait for that.

        What goes wrong here goes wrong again at the next look, which says so.
        """
        for standing in self._running.values():
            with contextlib.suppress(FedriskError):
                self._pass_on_file(standing, standing.folder / CHECKPOINT)

    def _pass_on_file(self, standing: Standing, path: Path) -> None:
        """Put a file into the store if it is new, and let the server know of a checkpoint."""
        with contextlib.suppress(FileNotFoundError):
            changed = path.stat().st_mtime_ns
            if not path.is_file() or standing.shared.get(path.name) == changed:
                return
            put(self._store, f"{_base(standing.request.run)}/{path.name}", path.read_bytes())
            standing.shared[path.name] = changed
            if path.name == CHECKPOINT:
                write_atomically(standing.folder / PRIVATE / STORED, str(changed).encode())

    def _pass_on(self, standing: Standing) -> list[str]:
        """Put what is new into the store; returns which files say how the run ended."""
        base, attempt = _base(standing.request.run), standing.request.attempt
        ended: dict[str, dict[str, Any]] = {}
        for name in (OUTCOME, FAILURE):
            path = standing.folder / PRIVATE / name
            if path.exists():
                said = json.loads(path.read_bytes())
                ended[name] = {"outcome": said} if name == OUTCOME else said
        for path in sorted(standing.folder.iterdir()):
            if not path.name.startswith("."):  # half written, and gone in a moment
                self._pass_on_file(standing, path)
        for name, said in ended.items():
            put(self._store, f"{base}/{name}", json.dumps({**said, "attempt": attempt}).encode())
        return list(ended)

    def _fail(self, run: str, kind: str, message: str) -> None:
        failure = {"kind": kind, "message": message, "attempt": self._attempts.get(run, "")}
        put(self._store, f"{_base(run)}/{FAILURE}", json.dumps(failure).encode())

    def _forget(self, run: str) -> None:
        """Stop a run, if it runs, and put away what it has left here."""
        standing = self._running.pop(run, None)
        if standing is None:
            return
        with _logged(f"run {run} could not be stopped"):
            control.flwr("stop", standing.flower, control.CONNECTION)
        shutil.rmtree(standing.folder, ignore_errors=True)

    def _finished(self, standing: Standing) -> bool:
        now = time.monotonic()
        if now - standing.looked < STATUS_EVERY:
            return False
        standing.looked = now
        with _logged(f"the status of run {standing.request.run} is not known"):
            found = control.flwr("ls", "--run-id", standing.flower, control.CONNECTION)
            return str(found["runs"][0]["status"]).startswith("finished")
        return False


def _base(run: str) -> str:
    return f"{CONSORTIUM}/{run}/files/federated"


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """A refusal by Flower's control API is logged, and does not end the dispatcher."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (Flower's client raises many kinds)
        log.warning("%s: %s", what, error)
