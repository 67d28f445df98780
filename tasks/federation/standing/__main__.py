"""A long-running federation: the SuperLink with its dispatcher, and a hospital's SuperNode.

``python -m tasks.federation.standing superlink`` keeps a SuperLink up and watches
two things: public keys of hospitals in a folder, which it registers, and requests in the store,
which it starts as runs. It ends when its certificate was renewed, to be started with the new one.
``python -m tasks.federation.standing supernode --hospital H`` keeps a hospital's SuperNode
connected. Both end with SIGTERM and leave nothing behind.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import time
from pathlib import Path

from tasks.errors import FederationError, FedriskError, SettingsError
from tasks.federation.deployment.certificates import Certificates
from tasks.federation.deployment.commands import flower_environment, superlink_command
from tasks.federation.deployment.identity import certificates_of
from tasks.federation.deployment.supernode import SuperNode, serve
from tasks.federation.deployment.termination import check_interrupted, interruptible
from tasks.federation.flower import control_cli as control
from tasks.federation.flower.warm_executor import wait_for_port
from tasks.federation.hospital.row_cache import forget_rows
from tasks.federation.standing.certificate_watch import CertificateWatch
from tasks.federation.standing.dispatcher import Dispatcher
from tasks.launch.environment import QUIET
from tasks.launch.process_tree import ProcessTree, tail
from tasks.settings import Settings

DISPATCH_EVERY = 1.0
"""Seconds between two looks of the dispatcher."""
CHECKPOINT_POLL = 0.1
"""Seconds between two looks for a new checkpoint, which its server waits to see stored."""
PORT = 9092
READY = "ready"
"""In the SuperNode's own folder: it is connected. Several SuperNodes may share a machine."""
CONTAINER_READY = Path("/tmp/ready")
"""The same where a container has one SuperNode, for its health check (the images, the chart)."""
IMAGE_HOME = Path("/var/lib/fedrisk")
"""``FEDRISK_HOME`` of the images: by it a process knows that it has its container to itself."""
GONE = 3600.0
"""Seconds without a connection after which a standing SuperNode ends, to be started again."""


class CertificateRenewed(FederationError):  # noqa: N818  (it says what is the matter)
    """The SuperLink's certificate is another than the one that it started with."""


def superlink(settings: Settings) -> int:
    """Keep a SuperLink and its dispatcher until SIGTERM.

    Args:
        settings: Identity, registered keys, store and port.

    Returns:
        The exit code.

    Raises:
        SettingsError: A setting that the SuperLink needs is missing.
        FederationError: The SuperLink has ended.
        CertificateRenewed: Its certificate is another; it is to be started again.
    """
    for name in ("store", "registered", "identity"):
        if not getattr(settings, name):
            raise SettingsError(f"FEDRISK_{name.upper()} is not set; the SuperLink needs it.")
    folder = settings.home / "federation" / "superlink"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    port = int(settings.superlink.rpartition(":")[2] or PORT)
    processes = ProcessTree(force=True)
    with interruptible():
        try:
            files = certificates_of(settings, folder / "identity")
            watch = CertificateWatch(files)
            _start(processes, files, port, folder)
            os.environ["FLWR_HOME"] = str(folder / "flower")
            os.environ.update(QUIET)
            control.connect(folder / "flower", f"127.0.0.1:{port}", files.authority)
            wait_for_port(port)
            print(f"the SuperLink listens on port {port}", flush=True)
            dispatcher = Dispatcher(settings, folder / "dispatcher")
            while not processes.ended():
                check_interrupted()
                dispatcher.look()
                if watch.look():
                    raise CertificateRenewed(
                        "the SuperLink's certificate was renewed, so it ends to be started again "
                        "with that; runs go on from their checkpoints."
                    )
                for _ in range(round(DISPATCH_EVERY / CHECKPOINT_POLL)):
                    time.sleep(CHECKPOINT_POLL)
                    dispatcher.pass_on_checkpoints()
            raise FederationError(
                f"the SuperLink has ended; its log ends:\n{tail(folder / 'superlink.log')}"
            )
        finally:
            processes.end()


def _start(processes: ProcessTree, files: Certificates, port: int, folder: Path) -> None:
    command = superlink_command(files, "0.0.0.0", port, folder / "secret", warm=True, standing=True)
    home = folder / "flower-superlink"
    variables = flower_environment(os.environ, home, ("AWS_", "FEDRISK_"))
    processes.start("superlink", command, variables, folder / "superlink.log")


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
    # A SuperNode that was killed may have left rows, and said that it is connected.
    forget_rows(settings, hospital)
    node = _Reporting(settings, hospital, settings.home / "federation" / hospital)
    node.say(False)
    with interruptible():
        try:
            serve(node, lambda: False, GONE, float("inf"))
        finally:
            node.say(False)
            node.end()
            forget_rows(settings, hospital)
    return 0


class _Reporting(SuperNode):
    """A SuperNode that says in a file whether it is connected, for a readiness probe."""

    def __init__(self, settings: Settings, hospital: str, folder: Path) -> None:
        super().__init__(settings, hospital, folder)
        self._said = [folder / READY]
        if settings.home == IMAGE_HOME:
            self._said.append(CONTAINER_READY)

    def look(self) -> bool:
        """See ``SuperNode.look``."""
        found = super().look()
        self.say(found)
        return found

    def say(self, connected: bool) -> None:
        """Leave the files or take them away.

        Args:
            connected: Whether the SuperLink has let the SuperNode in.
        """
        for path in self._said:
            if not connected:
                path.unlink(missing_ok=True)
            elif not path.exists():
                path.touch()


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
