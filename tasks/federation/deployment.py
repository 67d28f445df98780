"""Lay out and start one federation: folders, keys, ports, configurations, processes."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import tasks
from tasks.errors import SettingsError
from tasks.federation.certificates import (
    Certificates,
    make_certificates,
    make_node_key,
    write_private,
)
from tasks.federation.hospital import hospital_config
from tasks.federation.processes import Processes
from tasks.launch import step_environment
from tasks.manifest import TableVersion
from tasks.plan import check_executor
from tasks.settings import PREFIX, Settings
from tasks.step import Context
from tasks.telemetry.round_event import read_events

APP = Path(__file__).parent / "app"
OUTCOME, FAILURE, GONE, SERVER = "outcome.json", "failure.json", "gone.json", "server.json"


@dataclass(frozen=True)
class Deployment:
    """A federation that has been started.

    Attributes:
        folder: The step's folder: model, events, checkpoint, logs.
        private: Keys and configurations, deleted with the federation's next start.
        known_rounds: The last round that an earlier attempt has told.
        port: The SuperLink's.
        certificates: The SuperLink's.
    """

    folder: Path
    private: Path
    known_rounds: int
    port: int
    certificates: Certificates

    @property
    def outcome(self) -> Path:
        """Written by the server when all went well."""
        return self.private / OUTCOME

    @property
    def failure(self) -> Path:
        """Written by the server when it did not."""
        return self.private / FAILURE

    @property
    def gone(self) -> Path:
        """Hospitals whose process has ended, written by the launcher."""
        return self.private / GONE

    def log(self, name: str) -> Path:
        """A process's log.

        Args:
            name: A hospital, ``superlink`` or ``control``.
        """
        return self.folder / f"{name}.log"


def deploy(context: Context, folder: Path, processes: Processes) -> Deployment:
    """Start the SuperLink, a SuperNode a hospital, and the run.

    Args:
        context: The step's.
        folder: The step's folder.
        processes: What starts and ends them.

    Raises:
        DataError: A hospital's step ``features`` has left no table.
        StudyError: Flower's own SuperLink is asked for where other machines reach it.
    """
    elsewhere = context.settings.superlink
    warm = context.study.federation.executor == "warm"
    if elsewhere:
        check_executor(context.study)
    tables = {
        name: context.run.read("features", name).tables["gold"] for name in context.plan.hospitals
    }
    private = folder / "private"
    shutil.rmtree(private, ignore_errors=True)
    private.mkdir(mode=0o700)
    ports = free_ports(1 + len(tables))
    deployment = Deployment(
        folder,
        private,
        max((event.round for event in read_events(folder / "rounds.jsonl")), default=0),
        int(elsewhere.rpartition(":")[2]) if elsewhere else ports[0],
        certificates_of(context.settings, private / "superlink"),
    )
    _write_server(context, deployment, tables)
    _start_superlink(context, deployment, processes, warm)
    if elsewhere:
        # The hospitals come by themselves (``join``), with the keys that they have registered.
        _start_control(context, deployment, processes, registered(context.settings, list(tables)))
        return deployment
    keys = {}
    for name, port in zip(tables, ports[1:], strict=True):
        own = private / name
        own.mkdir(mode=0o700)
        key, keys[name] = make_node_key(own)
        _write_hospital(context, own, name, tables[name])
        if warm:
            _start_hospital(context, deployment, processes, name, port, key, warm=True)
    _start_control(context, deployment, processes, keys)
    if not warm:
        # Flower's own command does not wait: an unregistered key would be turned away.
        _wait_for(private / "registered", processes, deployment)
        for name, port in zip(tables, ports[1:], strict=True):
            key = private / name / "node.key"
            _start_hospital(context, deployment, processes, name, port, key, warm=False)
    return deployment


def certificates_of(settings: Settings, folder: Path) -> Certificates:
    """The SuperLink's certificates: its identity's, or new ones.

    Args:
        settings: ``identity`` names the folder with ``ca.crt``, ``tls.crt`` and ``tls.key``.
        folder: Where new ones are made.

    Raises:
        SettingsError: A file of the identity is not there.
    """
    if not settings.identity:
        return make_certificates(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = Path(settings.identity)
    return Certificates(*(known_file(own / name) for name in ("ca.crt", "tls.crt", "tls.key")))


def known_file(path: Path) -> Path:
    """The path of an identity's file.

    Raises:
        SettingsError: It is not there.
    """
    if not path.is_file():
        raise SettingsError(
            f"FEDRISK_IDENTITY: no file {path}. Make it with `fedrisk federation init` (SuperLink) "
            "or `fedrisk hospital add` (hospital), or mount it."
        )
    return path


def registered(settings: Settings, hospitals: list[str]) -> dict[str, Path]:
    """The registered public keys of the hospitals, those that have one, as they are now.

    Args:
        settings: ``registered`` names the folder.
        hospitals: Those of the run.

    Raises:
        SettingsError: No hospital of the run is registered.
    """
    folder = Path(settings.registered)
    keys = {name: folder / f"{name}.pub" for name in hospitals}
    found = {name: path for name, path in keys.items() if path.is_file()}
    if not settings.registered or not found:
        raise SettingsError(
            f"FEDRISK_REGISTERED={settings.registered}: no key of {', '.join(hospitals)} is there. "
            "Expected <hospital>.pub for each, as `fedrisk hospital add` leaves it."
        )
    for name in sorted(set(keys) - set(found)):
        print(f"{name}: no registered key in {folder}, so it cannot join", flush=True)
    return found


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on now."""
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


def fingerprint(context: Context, tables: dict[str, TableVersion]) -> str:
    """What a checkpoint belongs to: the study and the versions of the hospitals' tables."""
    text = json.dumps([context.study.digest(), {n: t.version for n, t in tables.items()}])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def environment(context: Context, home: Path, hospital: str | None) -> dict[str, str]:
    """A process's environment: the system's variables and Flower's, no setting of ours.

    Args:
        context: The step's.
        home: Flower's home folder of this process alone.
        hospital: Whose process it is.
    """
    found = step_environment(context.settings, hospital)
    found = {key: value for key, value in found.items() if not key.startswith(PREFIX)}
    if hospital is None:
        # Only a hospital reads a table.
        found = {key: value for key, value in found.items() if not key.startswith("AWS_")}
    binaries, package = str(Path(sys.executable).parent), str(Path(tasks.__file__).parent.parent)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    return found | {
        "FLWR_HOME": str(home),
        "PATH": f"{binaries}:{found.get('PATH', '')}",
        "PYTHONPATH": ":".join(filter(None, [package, found.get("PYTHONPATH", "")])),
        # One hospital's batches are too small to share out, and threads do not survive a fork.
        "OMP_NUM_THREADS": "1",
    }


def _write_server(
    context: Context, deployment: Deployment, tables: dict[str, TableVersion]
) -> None:
    config = {
        "study": context.study.model_dump(mode="json"),
        "hospitals": context.plan.hospitals,
        "nodes": {},
        "fingerprint": fingerprint(context, tables),
    }
    write_private(deployment.private / SERVER, json.dumps(config).encode())


def superlink_arguments(files: Certificates, host: str) -> list[str]:
    """Arguments of Flower's SuperLink: TLS and node keys on, nothing fetched at run time.

    Args:
        files: Its certificates.
        host: The address that it binds.
    """
    return [
        *("--ssl-ca-certfile", str(files.authority), "--ssl-certfile", str(files.certificate)),
        *("--ssl-keyfile", str(files.key), "--enable-supernode-auth", "--host", host),
        "--disable-runtime-dependency-installation",
    ]


def _write_hospital(context: Context, own: Path, name: str, table: TableVersion) -> None:
    config = hospital_config(context, name, table)
    write_private(own / "hospital.json", config.model_dump_json().encode())
    write_private(own / "secret", secrets.token_bytes(32))


def _start_superlink(
    context: Context, deployment: Deployment, processes: Processes, warm: bool
) -> None:
    own, files = deployment.private / "superlink", deployment.certificates
    write_private(own / "secret", secrets.token_bytes(32))
    flower = superlink_arguments(files, "0.0.0.0" if context.settings.superlink else "127.0.0.1")
    if warm:
        ours = ["--port", str(deployment.port), "--secret", str(own / "secret")]
        ours += ["--authority", str(files.authority)]
        command = [sys.executable, "-m", "tasks.federation.executor", "superlink", *ours, "--"]
    else:
        command = ["flower-superlink", "--isolation", "subprocess", "--port", str(deployment.port)]
    variables = environment(context, own / "flower", None)
    processes.start("superlink", [*command, *flower], variables, deployment.log("superlink"))


def _start_hospital(
    context: Context,
    deployment: Deployment,
    processes: Processes,
    name: str,
    port: int,
    key: Path,
    *,
    warm: bool,
) -> None:
    own = deployment.private / name
    flower = [
        *("--superlink", f"127.0.0.1:{deployment.port}"),
        *("--root-certificates", str(deployment.certificates.authority)),
        *("--auth-supernode-private-key", str(key)),
        *("--node-config", f'hospital="{name}" config="{own / "hospital.json"}"'),
        # A SuperNode whose SuperLink is gone must not try for ever.
        *("--max-retries", "20", "--max-wait-time", "60"),
    ]
    if warm:
        ours = ["--hospital", name, "--port", str(port), "--secret", str(own / "secret")]
        ours += ["--config", str(own / "hospital.json")]
        ours += ["--after", str(deployment.private / "registered")]
        command = [sys.executable, "-m", "tasks.federation.executor", "supernode", *ours, "--"]
    else:
        command = ["flower-supernode", "--port", str(port)]
    variables = environment(context, own / "flower", name)
    processes.start(name, [*command, *flower], variables, deployment.log(name))


def _start_control(
    context: Context, deployment: Deployment, processes: Processes, keys: dict[str, Path]
) -> None:
    from tasks.federation.control import ControlRequest, connect

    own = deployment.private / "control"
    variables = environment(context, own / "flower", None)
    authority = deployment.certificates.authority
    connect(own / "flower", f"127.0.0.1:{deployment.port}", authority)
    # A copy without the caches that importing it may have left beside it.
    app = own / "app"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
    request = ControlRequest(
        port=deployment.port,
        keys=keys,
        app=app,
        folder=deployment.private,
        run=context.run.run,
        server=deployment.private / SERVER,
        registered=deployment.private / "registered",
    )
    write_private(own / "request.json", request.model_dump_json().encode())
    command = [sys.executable, "-m", "tasks.federation.control", str(own / "request.json")]
    processes.start("control", command, variables, deployment.log("control"))


def _wait_for(path: Path, processes: Processes, deployment: Deployment) -> None:
    import time

    from tasks.errors import FederationError
    from tasks.federation.processes import tail

    end = time.monotonic() + 120
    while not path.exists():
        if processes.ended() or time.monotonic() > end:
            raise FederationError(
                f"the SuperLink took no keys; {deployment.log('control')} ends:\n"
                f"{tail(deployment.log('control'))}"
            )
        time.sleep(0.1)
