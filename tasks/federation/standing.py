"""A federation that stands: the SuperLink with its desk, and a hospital's SuperNode.

``python -m tasks.federation.standing superlink`` keeps a SuperLink up and looks, at its desk, for
two things: public keys of hospitals in a folder, which it registers, and requests in the store,
which it starts as runs. ``python -m tasks.federation.standing supernode --hospital H`` keeps a
hospital's SuperNode connected. Both end with SIGTERM and leave nothing behind.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import FederationError, FedriskError, SettingsError
from tasks.federation import control
from tasks.federation.certificates import Certificates, write_private
from tasks.federation.deployment import (
    APP,
    FAILURE,
    OUTCOME,
    SERVER,
    certificates_of,
)
from tasks.federation.executor import wait_for_port
from tasks.federation.handover import REQUESTS, TAKEN, FederationRequest
from tasks.federation.processes import Processes, tail
from tasks.federation.server import ServerConfig
from tasks.federation.supernode import SuperNode, serve
from tasks.federation.termination import interruptible
from tasks.launch import QUIET
from tasks.manifest import RUN_PATTERN
from tasks.objects import StoreUnavailable, get, keys, put
from tasks.settings import Settings
from tasks.store import CONSORTIUM

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks at the desk."""
STATUS_EVERY = 10.0
"""Seconds between two questions to Flower whether a run still runs."""
PORT = 9092
READY = Path("/tmp/ready") if os.name == "posix" else Path("ready")
GONE = 3600.0
"""Seconds without a connection after which a standing SuperNode ends; its keeper starts it anew."""


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


def superlink(settings: Settings) -> int:
    """Keep a SuperLink and its desk until SIGTERM.

    Args:
        settings: Identity, registered keys, store and port.

    Returns:
        The exit code.

    Raises:
        SettingsError: A setting that the SuperLink needs is missing.
        FederationError: The SuperLink has ended.
    """
    for name in ("store", "registered", "identity"):
        if not getattr(settings, name):
            raise SettingsError(f"FEDRISK_{name.upper()} is not set; the SuperLink needs it.")
    folder = settings.home / "federation" / "superlink"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    port = int(settings.superlink.rpartition(":")[2] or PORT)
    processes = Processes()
    with interruptible():
        try:
            files = certificates_of(settings, folder / "identity")
            _start(processes, files, port, folder)
            os.environ["FLWR_HOME"] = str(folder / "flower")
            os.environ.update(QUIET)
            control.connect(folder / "flower", f"127.0.0.1:{port}", files.authority)
            wait_for_port(port)
            print(f"the SuperLink listens on port {port}", flush=True)
            desk = Desk(settings, folder / "runs")
            while not processes.ended():
                desk.look()
                time.sleep(LOOK)
            raise FederationError(
                f"the SuperLink has ended; its log ends:\n{tail(folder / 'superlink.log')}"
            )
        finally:
            processes.end()


def _start(processes: Processes, files: Certificates, port: int, folder: Path) -> None:
    secret = folder / "secret"
    write_private(secret, secrets.token_bytes(32))
    ours = ["--port", str(port), "--secret", str(secret), "--authority", str(files.authority)]
    flower = [
        *("--ssl-ca-certfile", str(files.authority), "--ssl-certfile", str(files.certificate)),
        *("--ssl-keyfile", str(files.key), "--enable-supernode-auth", "--host", "0.0.0.0"),
        "--disable-runtime-dependency-installation",
    ]
    command = [sys.executable, "-m", "tasks.federation.executor", "superlink", "--standing"]
    home = folder / "flower-superlink"
    home.mkdir(mode=0o700)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "FEDRISK_"))}
    variables = {
        **kept,
        **QUIET,
        "FLWR_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
    }
    processes.start(
        "superlink", [*command, *ours, "--", *flower], variables, folder / "superlink.log"
    )


def supernode(settings: Settings, hospital: str) -> int:
    """Keep a hospital's SuperNode connected until SIGTERM.

    Args:
        settings: The SuperLink's address, the hospital's identity and lake.
        hospital: Whose SuperNode it is.

    Returns:
        The exit code.

    Raises:
        SettingsError: A setting that the SuperNode needs is missing.
        FederationError: The SuperLink did not let it in for an hour.
    """
    for name in ("superlink", "identity", "lake"):
        if not getattr(settings, name):
            raise SettingsError(f"FEDRISK_{name.upper()} is not set; the SuperNode needs it.")
    READY.unlink(missing_ok=True)
    node = _Reporting(settings, hospital, settings.home / "federation" / hospital)
    with interruptible():
        try:
            serve(node, lambda: False, GONE, float("inf"))
        finally:
            READY.unlink(missing_ok=True)
            node.end()
    return 0


class _Reporting(SuperNode):
    """A SuperNode that says in a file whether it is connected, for a readiness probe."""

    def look(self) -> bool:
        """See ``SuperNode.look``."""
        found = super().look()
        if found and not READY.exists():
            READY.touch()
        elif not found:
            READY.unlink(missing_ok=True)
        return found


def main() -> int:
    """``python -m tasks.federation.standing superlink | supernode --hospital H``."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m tasks.federation.standing")
    parser.add_argument("role", choices=["superlink", "supernode"])
    parser.add_argument("--hospital", default="")
    given = parser.parse_args()
    try:
        settings = Settings.from_environment()
        if given.role == "superlink":
            return superlink(settings)
        if not given.hospital:
            raise SettingsError("supernode needs --hospital NAME.")
        return supernode(settings, given.hospital)
    except FedriskError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
