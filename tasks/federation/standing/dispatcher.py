"""The desk of a standing SuperLink: where runs are handed in, and handed back.

Keys lie in a folder (``registered.py``), requests in the store. Each request that appears is
started as a run, each that goes is stopped; what a run leaves is passed on to whoever asked for it.
A request whose step gives no sign of life any more (``signs.py``) is taken for one that has gone.
A request carries the attempt that left it, and so does all that is said of how it was taken up and
how it ended: what belongs to an earlier attempt of the step is never taken for the newest one's.
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
from tasks.federation.run_files import CHECKPOINT, FAILURE, OUTCOME, PROGRESS, SERVER
from tasks.federation.server.checkpoint import fingerprint_of
from tasks.federation.server.training import ServerConfig
from tasks.federation.standing.heartbeat import Signs
from tasks.federation.standing.key_registry import RegisteredKeys
from tasks.federation.standing.request import (
    AWAY,
    REQUESTS,
    SPARE,
    TAKEN,
    FederationRequest,
    attempt_of,
    sign_of,
)
from tasks.objects import get, keys, put, remove
from tasks.run.folder import RUN_PATTERN
from tasks.run.steps import CONSORTIUM
from tasks.settings import Settings

log = logging.getLogger(__name__)

STATUS_EVERY = 10.0
"""Seconds between two questions to Flower whether a run still runs."""
SILENT = AWAY + 2 * SPARE
"""Seconds without a sign of its step after which a run is stopped: a step bears that its store is
away for the first part, and asks for up to 35 s before it knows."""


@dataclass
class Standing:
    """One run that trains now.

    Attributes:
        asked: The request, of the newest attempt.
        flower: Flower's id of the run.
        folder: Where its ServerApp leaves its files.
        shared: When each file that is in the store was written.
        looked: When Flower was last asked whether the run still runs.
    """

    asked: FederationRequest
    flower: str
    folder: Path
    shared: dict[str, int] = field(default_factory=dict)
    looked: float = field(default_factory=time.monotonic)


class Desk:
    """Where keys and requests are handed in."""

    def __init__(
        self, settings: Settings, folder: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Say where to look.

        Args:
            settings: The store, and the folder of registered keys.
            folder: The desk's own files.
            clock: Seconds, by which the steps' signs of life are waited for.
        """
        self._store, self._folder = settings.store, folder
        self._keys = RegisteredKeys(Path(settings.registered), folder / "keys")
        self._signs = Signs(SILENT, clock)
        self._running: dict[str, Standing] = {}
        self._attempts: dict[str, str] = {}
        self._given_up: dict[str, str] = {}
        self._told = ""

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
            if str(error) != self._told:
                log.warning("%s", error)
            self._told = str(error)
            self._signs.excuse()
            return
        self._told = ""
        self._given_up = {run: each for run, each in self._given_up.items() if run in wanted}
        for run in sorted(wanted):
            with self._seeing_to(run):
                self._signs.hear(run, get(self._store, sign_of(run)) or b"")
        self._signs.keep(wanted)
        silent = {run for run in wanted if self._signs.silent(run)}
        for run in sorted(wanted - set(self._running)):
            with self._seeing_to(run):
                if self._signs.waits(run):
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
            self._signs.excuse([run])
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
        """What is asked now; None where it was withdrawn, or is what the desk has given up."""
        content = get(self._store, f"{REQUESTS}/{run}.json")
        if content is None:
            return None
        self._attempts[run] = attempt_of(content)
        if self._given_up.get(run) == self._attempts[run]:
            return None
        return FederationRequest.model_validate_json(content)

    def _start(self, run: str) -> None:
        asked = self._request(run)
        if asked is None:
            return
        if self._has_ended(run, asked.attempt):
            return  # the step has yet to see how
        left = self._left(asked)
        self._take(asked)
        folder = self._folder / "runs" / run
        shutil.rmtree(folder, ignore_errors=True)
        private = folder / "private"
        private.mkdir(parents=True, mode=0o700)
        self._prepare(asked, folder)
        for name, content in left.items():
            (folder / name).write_bytes(content)
        self._running[run] = Standing(asked, control.submit(self._app(), private, run), folder)
        print(f"run {run}: started", flush=True)

    def _has_ended(self, run: str, attempt: str) -> bool:
        found = [get(self._store, f"{_base(run)}/{name}") for name in (OUTCOME, FAILURE)]
        return any(each is not None and attempt_of(each) == attempt for each in found)

    def _withdraw(self, run: str) -> None:
        """Take a request back in the place of its step, which has died."""
        content = get(self._store, f"{REQUESTS}/{run}.json")
        self._signs.hear(run, get(self._store, sign_of(run)) or b"")
        if content is None or not self._signs.silent(run):
            return  # another attempt came just now
        self._attempts[run] = attempt_of(content)
        if not self._has_ended(run, self._attempts[run]):
            # Should the step live after all (its machine slept), it need not wait any longer.
            why = f"no sign of the step was seen for {SILENT:g} s, so its run was stopped"
            self._fail(run, "FederationError", f"{why}. Run the step again: it goes on.")
        for key in (sign_of(run), f"{REQUESTS}/{run}.json"):
            remove(self._store, key)
        print(f"run {run}: its request is deleted, for its step has died", flush=True)

    def _left(self, asked: FederationRequest) -> dict[str, bytes]:
        """What an earlier attempt has left to go on from, if it trained on the same tables.

        What it has left of others is deleted before the run is taken up, so that from then on the
        step finds this run's rounds and no other's.
        """
        found = {name: get(self._store, f"{_base(asked.run)}/{name}") for name in PROGRESS}
        if fingerprint_of(found[CHECKPOINT] or b"") == asked.fingerprint:
            return {name: content for name, content in found.items() if content is not None}
        if any(content is not None for content in found.values()):
            print(f"run {asked.run}: what was left is of no use with these tables", flush=True)
        for name, content in found.items():
            if content is not None:
                remove(self._store, f"{_base(asked.run)}/{name}")
        return {}

    def _take(self, asked: FederationRequest) -> None:
        put(self._store, f"{_base(asked.run)}/{TAKEN}", asked.attempt.encode())

    def _prepare(self, asked: FederationRequest, folder: Path) -> None:
        known = self._keys.nodes
        nodes = {name: known[name] for name in asked.hospitals if name in known}
        if len(nodes) < asked.study.federation.min_hospitals:
            raise FederationError(
                f"{len(nodes)} of {len(asked.hospitals)} hospitals are registered, and the study "
                f"needs {asked.study.federation.min_hospitals}; missing: "
                f"{', '.join(sorted(set(asked.hospitals) - set(nodes)))}."
            )
        config = ServerConfig(
            study=asked.study,
            hospitals=asked.hospitals,
            nodes=nodes,
            fingerprint=asked.fingerprint,
        )
        write_private(folder / "private" / SERVER, config.model_dump_json().encode())

    def _app(self) -> Path:
        app = self._folder / "app"
        if not app.exists():
            copy_app(app)
        return app

    def _see(self, standing: Standing, wanted: bool) -> None:
        run = standing.asked.run
        newest = self._request(run) if wanted else None
        if newest is not None and newest.attempt != standing.asked.attempt:
            if newest.model_copy(update={"attempt": standing.asked.attempt}) != standing.asked:
                print(f"run {run}: asked for anew, with another study or tables", flush=True)
                self._forget(run)
                self._start(run)
                return
            # The step was started anew, and wants what trains already.
            standing.asked = newest
            self._take(newest)
            print(f"run {run}: goes on for another attempt of its step", flush=True)
        # Asked first: what a run leaves, it leaves before it ends.
        finished = self._finished(standing)
        ended = self._pass_on(standing)
        if ended:
            print(f"run {run}: ended with {', '.join(ended)}", flush=True)
        elif not wanted:
            print(f"run {run}: stopped, for nobody waits for it", flush=True)
            self._forget(run)
        elif finished:
            self._fail(run, "FederationError", "the ServerApp ended without a word")
        else:
            return
        if run in self._running:
            del self._running[run]
            shutil.rmtree(standing.folder, ignore_errors=True)

    def _pass_on(self, standing: Standing) -> list[str]:
        """Put what is new into the store; returns which files say how the run ended."""
        base, attempt = _base(standing.asked.run), standing.asked.attempt
        ended: dict[str, dict[str, Any]] = {}
        for name in (OUTCOME, FAILURE):
            path = standing.folder / "private" / name
            if path.exists():
                said = json.loads(path.read_bytes())
                ended[name] = {"outcome": said} if name == OUTCOME else said
        for path in sorted(standing.folder.iterdir()):
            if path.name.startswith("."):
                continue  # half written, and gone in a moment
            try:
                changed = path.stat().st_mtime_ns
                if not path.is_file() or standing.shared.get(path.name) == changed:
                    continue
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            put(self._store, f"{base}/{path.name}", content)
            standing.shared[path.name] = changed
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
        with _told(f"run {run} could not be stopped"):
            control.flwr("stop", standing.flower, control.CONNECTION)
        shutil.rmtree(standing.folder, ignore_errors=True)

    def _finished(self, standing: Standing) -> bool:
        now = time.monotonic()
        if now - standing.looked < STATUS_EVERY:
            return False
        standing.looked = now
        with _told(f"the status of run {standing.asked.run} is not known"):
            found = control.flwr("ls", "--run-id", standing.flower, control.CONNECTION)
            return str(found["runs"][0]["status"]).startswith("finished")
        return False


def _base(run: str) -> str:
    return f"{CONSORTIUM}/{run}/files/federated"


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """A refusal by Flower's control API is told, and no end of the desk."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (Flower's client raises many kinds)
        log.warning("%s: %s", what, error)
