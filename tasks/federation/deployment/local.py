"""Lay out and start one federation: folders, keys, ports, configurations, processes."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from tasks.federation.deployment.certificates import (
    Certificates,
    make_node_key,
    write_private,
)
from tasks.federation.deployment.commands import copy_app, environment, superlink_arguments
from tasks.federation.deployment.identity import certificates_of, registered
from tasks.federation.deployment.processes import Processes
from tasks.federation.hospital.config import hospital_config
from tasks.federation.run_files import FAILURE, GONE, OUTCOME, SERVER
from tasks.federation.server.checkpoint import fingerprint
from tasks.run.manifest import TableVersion
from tasks.run.plan import check_executor
from tasks.run.step import Context
from tasks.telemetry.round_event import read_events


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


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on now."""
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


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
        command = [
            sys.executable,
            "-m",
            "tasks.federation.flower.warm_executor",
            "superlink",
            *ours,
            "--",
        ]
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
        command = [
            sys.executable,
            "-m",
            "tasks.federation.flower.warm_executor",
            "supernode",
            *ours,
            "--",
        ]
    else:
        command = ["flower-supernode", "--port", str(port)]
    variables = environment(context, own / "flower", name)
    processes.start(name, [*command, *flower], variables, deployment.log(name))


def _start_control(
    context: Context, deployment: Deployment, processes: Processes, keys: dict[str, Path]
) -> None:
    from tasks.federation.flower.control_cli import ControlRequest, connect

    own = deployment.private / "control"
    variables = environment(context, own / "flower", None)
    authority = deployment.certificates.authority
    connect(own / "flower", f"127.0.0.1:{deployment.port}", authority)
    app = own / "app"
    copy_app(app)
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
    command = [
        sys.executable,
        "-m",
        "tasks.federation.flower.control_cli",
        str(own / "request.json"),
    ]
    processes.start("control", command, variables, deployment.log("control"))


def _wait_for(path: Path, processes: Processes, deployment: Deployment) -> None:
    import time

    from tasks.errors import FederationError
    from tasks.federation.deployment.processes import tail

    end = time.monotonic() + 120
    while not path.exists():
        if processes.ended() or time.monotonic() > end:
            raise FederationError(
                f"the SuperLink took no keys; {deployment.log('control')} ends:\n"
                f"{tail(deployment.log('control'))}"
            )
        time.sleep(0.1)
