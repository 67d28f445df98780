"""Lay out and start one federation: folders, keys, ports, configurations, processes."""

from __future__ import annotations

import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import FederationError
from tasks.federation.deployment.certificates import Certificates, make_node_key, write_private
from tasks.federation.deployment.commands import (
    SuperNodeFiles,
    control_command,
    copy_app,
    run_environment,
    superlink_command,
    supernode_command,
)
from tasks.federation.deployment.identity import certificates_of, registered
from tasks.federation.federation_run import FederationRun
from tasks.federation.flower.control_cli import ControlRequest, connect
from tasks.federation.hospital.config import CONFIG, hospital_config
from tasks.federation.run_files import FAILURE, GONE, OUTCOME, PRIVATE, ROUNDS, SERVER, STORED
from tasks.launch.process_tree import ProcessTree, tail
from tasks.run.plan import check_executor
from tasks.settings import Settings
from tasks.telemetry.round_event import read_events

REGISTERED = "registered"
"""In the private folder: written once all keys are registered."""


@dataclass(frozen=True)
class Deployment:
    """A federation that has been started.

    Attributes:
        folder: The step's folder: model, events, checkpoint, logs.
        private: Keys and configurations, deleted with the federation's next start.
        known_rounds: The last round that an earlier attempt has reported.
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
    def stored(self) -> Path:
        """Which checkpoint is in the store, written by the launcher."""
        return self.private / STORED

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


def deploy(
    run: FederationRun, settings: Settings, folder: Path, processes: ProcessTree
) -> Deployment:
    """Start the SuperLink, a SuperNode a hospital, and the run.

    Args:
        run: The run.
        settings: Where things live.
        folder: The step's folder.
        processes: What starts and ends them.

    Raises:
        StudyError: Flower's own SuperLink is asked for where other machines reach it.
        FederationError: Flower's own SuperLink took no keys.
    """
    elsewhere, warm = settings.superlink, run.study.federation.executor == "warm"
    if elsewhere:
        check_executor(run.study)
    private = folder / PRIVATE
    shutil.rmtree(private, ignore_errors=True)
    private.mkdir(mode=0o700)
    ports = free_ports(1 + len(run.hospitals))
    deployment = Deployment(
        folder,
        private,
        max((event.round for event in read_events(folder / ROUNDS)), default=0),
        int(elsewhere.rpartition(":")[2]) if elsewhere else ports[0],
        certificates_of(settings, private / "superlink"),
    )
    config = run.server_config({}, shared=bool(settings.store))
    write_private(deployment.private / SERVER, config.model_dump_json().encode())
    host = "0.0.0.0" if elsewhere else "127.0.0.1"
    own = private / "superlink"
    command = superlink_command(
        deployment.certificates, host, deployment.port, own / "secret", warm=warm
    )
    variables = run_environment(settings, own / "flower", None)
    processes.start("superlink", command, variables, deployment.log("superlink"))
    if elsewhere:
        # The hospitals come by themselves (``join``), with the keys that they have registered.
        keys = registered(settings, run.hospitals)
        _start_control(run, settings, deployment, processes, keys)
        return deployment
    keys, nodes = {}, {}
    for name in run.hospitals:
        own = private / name
        own.mkdir(mode=0o700)
        key, keys[name] = make_node_key(own)
        about = hospital_config(settings, run.run, run.study, name, run.tables[name])
        write_private(own / CONFIG, about.model_dump_json().encode())
        address = f"127.0.0.1:{deployment.port}"
        authority = deployment.certificates.authority
        nodes[name] = SuperNodeFiles(name, address, authority, key, own / CONFIG)
    if not warm:
        # Flower's own command does not wait: an unregistered key would be turned away.
        _start_control(run, settings, deployment, processes, keys)
        _wait_for(private / REGISTERED, processes, deployment)
    for (name, files), port in zip(nodes.items(), ports[1:], strict=True):
        own = private / name
        command = supernode_command(
            files, port, own / "secret", warm=warm, after=private / REGISTERED
        )
        variables = run_environment(settings, own / "flower", name)
        processes.start(name, command, variables, deployment.log(name))
    if warm:
        _start_control(run, settings, deployment, processes, keys)
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


def _start_control(
    run: FederationRun,
    settings: Settings,
    deployment: Deployment,
    processes: ProcessTree,
    keys: dict[str, Path],
) -> None:
    own = deployment.private / "control"
    variables = run_environment(settings, own / "flower", None)
    connect(own / "flower", f"127.0.0.1:{deployment.port}", deployment.certificates.authority)
    app = own / "app"
    copy_app(app)
    request = ControlRequest(
        port=deployment.port,
        keys=keys,
        app=app,
        folder=deployment.private,
        run=run.run,
        server=deployment.private / SERVER,
        registered=deployment.private / REGISTERED,
    )
    path = own / "request.json"
    write_private(path, request.model_dump_json().encode())
    processes.start("control", control_command(path), variables, deployment.log("control"))


def _wait_for(path: Path, processes: ProcessTree, deployment: Deployment) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        if processes.ended() or time.monotonic() > end:
            raise FederationError(
                f"the SuperLink took no keys; {deployment.log('control')} ends:\n"
                f"{tail(deployment.log('control'))}"
            )
        time.sleep(0.1)
