"""The desk of a standing SuperLink: where public keys and runs are handed in.

Keys lie in a folder, requests in the store. Each that appears is registered or started, each that
goes is unregistered or stopped; what a run leaves is passed on to whoever asked for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import FederationError, FedriskError
from tasks.federation import control
from tasks.federation.certificates import write_private
from tasks.federation.deployment import APP, FAILURE, OUTCOME, SERVER
from tasks.federation.handover import REQUESTS, TAKEN, FederationRequest
from tasks.federation.server import ServerConfig
from tasks.manifest import RUN_PATTERN
from tasks.objects import StoreUnavailable, get, keys, put
from tasks.settings import Settings
from tasks.store import CONSORTIUM

log = logging.getLogger(__name__)

STATUS_EVERY = 10.0
"""Seconds between two questions to Flower whether a run still runs."""


@dataclass
class Standing:
    """One run that trains now."""

    run: str
    flower: str
    folder: Path
    shared: dict[str, float] = field(default_factory=dict)
    asked: float = 0.0


class Desk:
    """Where keys and requests are handed in."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Say where to look.

        Args:
            settings: The store, and the folder of registered keys.
            folder: Where the runs' files go.
        """
        self._settings, self._folder = settings, folder
        self._nodes: dict[str, tuple[str, int]] = {}
        self._running: dict[str, Standing] = {}

    def look(self) -> None:
        """Register new keys, start new requests, pass on what the runs have left.

        A store that does not answer is asked again at the next look.
        """
        self._see_keys()
        try:
            wanted = set(self._requests())
            for run in wanted - set(self._running):
                self._start(run)
            for run, standing in list(self._running.items()):
                self._pass_on(standing, run in wanted)
        except StoreUnavailable as error:
            log.warning("%s", error)

    def _see_keys(self) -> None:
        folder = Path(self._settings.registered)
        found = {path.stem: path for path in sorted(folder.glob("*.pub"))}
        for name, path in found.items():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            known = self._nodes.get(name)
            if known is not None and known[0] == digest:
                continue
            if known is not None:
                self._drop(name)
            with _told(f"the key of {name} could not be registered"):
                self._nodes[name] = (digest, control.register(name, path))
                print(f"registered {name}", flush=True)
        for name in set(self._nodes) - set(found):
            self._drop(name)

    def _drop(self, name: str) -> None:
        _, node = self._nodes.pop(name)
        with _told(f"{name} could not be unregistered"):
            control.flwr("supernode", "unregister", str(node), control.CONNECTION)
            print(f"unregistered {name}", flush=True)

    def _requests(self) -> list[str]:
        names = [key.rpartition("/")[2] for key in keys(self._settings.store, REQUESTS)]
        runs = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        return [run for run in runs if RUN_PATTERN.fullmatch(run)]

    def _start(self, run: str) -> None:
        store, base = self._settings.store, f"{CONSORTIUM}/{run}/files/federated"
        if any(get(store, f"{base}/{name}") is not None for name in (OUTCOME, FAILURE)):
            return  # the step has yet to see how it ended
        content = get(store, f"{REQUESTS}/{run}.json")
        if content is None:
            return
        put(store, f"{base}/{TAKEN}", b"")
        folder = self._folder / run
        shutil.rmtree(folder, ignore_errors=True)
        private = folder / "private"
        private.mkdir(parents=True, mode=0o700)
        try:
            asked = FederationRequest.model_validate_json(content)
            self._prepare(asked, base, folder)
            flower = control.submit(self._app(), private, run)
        except Exception as error:
            kind = type(error).__name__ if isinstance(error, FedriskError) else "FederationError"
            log.exception("run %s could not be started", run)
            failure = {"kind": kind, "message": f"the SuperLink could not start the run: {error}"}
            put(store, f"{base}/{FAILURE}", json.dumps(failure).encode())
            return
        self._running[run] = Standing(run, flower, folder)
        print(f"run {run}: started", flush=True)

    def _prepare(self, asked: FederationRequest, base: str, folder: Path) -> None:
        nodes = {name: self._nodes[name][1] for name in asked.hospitals if name in self._nodes}
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
        for name in ("checkpoint.npz", "rounds.jsonl"):
            content = get(self._settings.store, f"{base}/{name}")
            if content is not None:
                (folder / name).write_bytes(content)

    def _app(self) -> Path:
        app = self._folder / "app"
        if not app.exists():
            shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
        return app

    def _pass_on(self, standing: Standing, wanted: bool) -> None:
        store, base = self._settings.store, f"{CONSORTIUM}/{standing.run}/files/federated"
        private = standing.folder / "private"
        ended = [name for name in (OUTCOME, FAILURE) if (private / name).exists()]
        for path in sorted(standing.folder.iterdir()):
            changed = path.stat().st_mtime
            if path.is_file() and path.name[0] != "." and standing.shared.get(path.name) != changed:
                put(store, f"{base}/{path.name}", path.read_bytes())
                standing.shared[path.name] = changed
        for name in ended:
            put(store, f"{base}/{name}", (private / name).read_bytes())
        if not ended and not wanted:
            with _told(f"run {standing.run} could not be stopped"):
                control.flwr("stop", standing.flower, control.CONNECTION)
            print(f"run {standing.run}: stopped, for its request is gone", flush=True)
        elif not ended and self._crashed(standing):
            failure = {"kind": "FederationError", "message": "the ServerApp ended without a word"}
            put(store, f"{base}/{FAILURE}", json.dumps(failure).encode())
        elif not ended:
            return
        else:
            print(f"run {standing.run}: ended with {', '.join(ended)}", flush=True)
        del self._running[standing.run]
        shutil.rmtree(standing.folder, ignore_errors=True)

    def _crashed(self, standing: Standing) -> bool:
        now = time.monotonic()
        if now - standing.asked < STATUS_EVERY:
            return False
        standing.asked = now
        with _told(f"the status of run {standing.run} is not known"):
            found = control.flwr("ls", "--run-id", standing.flower, control.CONNECTION)
            return str(found["runs"][0]["status"]).startswith("finished")
        return False


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """A refusal by Flower's control API is told, and no end of the desk."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (Flower's client raises many kinds)
        log.warning("%s: %s", what, error)
