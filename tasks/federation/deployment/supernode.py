"""One hospital's SuperNode as a child process: started, and started again while it should run.

Flower's SuperNode ends when the SuperLink is gone for a minute or does not know its key (yet). The
SuperLink may come back, on another machine and with no memory of its nodes, so whoever supervises
the SuperNode starts it again, more and more slowly.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tasks.errors import FederationError
from tasks.federation.deployment.certificates import write_private
from tasks.federation.deployment.identity import known_file
from tasks.federation.deployment.local import free_ports
from tasks.federation.deployment.processes import Processes, tail
from tasks.federation.deployment.termination import check_interrupted
from tasks.federation.hospital.config import OWN, STANDING
from tasks.launch.environment import QUIET
from tasks.settings import Settings

POLL = 0.5
STEADY = 60.0
"""Seconds after which a SuperNode counts as having worked."""
SLOWEST = 15.0
"""Longest pause, in seconds, before a SuperNode is started again."""
LEAVE = 6.0
"""Seconds that a SuperNode gets to take leave of the SuperLink, the first 3 of them for Flower."""
CONNECTED = "SuperNode ID:"
"""What Flower logs once the SuperLink has let the SuperNode in."""


class SuperNode:
    """The SuperNode of one hospital, and its restarts."""

    def __init__(
        self, settings: Settings, hospital: str, folder: Path, config: Path | None = None
    ) -> None:
        """Say whose it is; nothing is started yet.

        Args:
            settings: The SuperLink's address, and the hospital's identity.
            hospital: Whose SuperNode it is.
            folder: Where its log and Flower's own files go.
            config: The hospital's configuration of one run; None to take part in any run that
                the hospital has joined.

        Raises:
            SettingsError: A file of the identity is not there.
        """
        own = Path(settings.identity)
        self._address = settings.superlink
        self._authority, self._key = known_file(own / "ca.crt"), known_file(own / "node.key")
        self._hospital, self._folder, self._config = hospital, folder, config
        self._processes = Processes()
        self.log = folder / "supernode.log"
        self.starts = 0
        self.connected = 0.0
        self._started, self._pause, self._offset = 0.0, 1.0, 0

    def start(self) -> None:
        """Start it."""
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(folder / "secret", secrets.token_bytes(32))
        self._offset = self.log.stat().st_size if self.log.exists() else 0
        ours = ["--hospital", self._hospital, "--port", str(free_ports(1)[0])]
        ours += ["--secret", str(folder / "secret")]
        ours += ["--config", str(self._config)] if self._config else []
        flower = [
            *("--superlink", self._address, "--root-certificates", str(self._authority)),
            *("--auth-supernode-private-key", str(self._key)),
            *("--node-config", f'hospital="{self._hospital}" config="{self._config or STANDING}"'),
            *("--max-retries", "20", "--max-wait-time", "60"),
        ]
        command = [
            sys.executable,
            "-m",
            "tasks.federation.flower.warm_executor",
            "supernode",
            *ours,
            "--",
        ]
        self.starts += 1
        self._started = time.monotonic()
        self._processes.start("supernode", [*command, *flower], self._environment(), self.log)

    def _environment(self) -> dict[str, str]:
        home = self._folder / "flower"
        home.mkdir(exist_ok=True, mode=0o700)
        binaries = str(Path(sys.executable).parent)
        return {
            **os.environ,
            **QUIET,
            OWN: self._hospital,
            "FLWR_HOME": str(home),
            "PATH": f"{binaries}:{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            # One hospital's batches are too small to share out, and threads do not survive a fork.
            "OMP_NUM_THREADS": "1",
        }

    def look(self) -> bool:
        """See whether it is connected, and start it again if it has ended and its pause is over.

        Returns:
            Whether the SuperLink has let it in since it was last started.
        """
        now = time.monotonic()
        if "supernode" in self._processes.ended():
            if now - self._started > STEADY:
                self._pause = 1.0
            if now - self._started > self._pause:
                self._pause = min(SLOWEST, 2 * self._pause)
                print(
                    f"the SuperNode of {self._hospital} ended; it is started again "
                    f"(start {self.starts + 1})",
                    flush=True,
                )
                # What its forks left would stay behind as zombies.
                self._processes.end()
                self.start()
            return False
        if self.connected < self._started and self._let_in():
            self.connected = now
            print(f"{self._hospital} has joined {self._address}", flush=True)
        return self.connected >= self._started

    def _let_in(self) -> bool:
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(self._offset)
            return CONNECTED.encode() in file.read()
        return False

    def end(self) -> None:
        """End it and all that it started.

        It is asked first: then it takes leave of the SuperLink, which otherwise takes it for alive
        for a minute and lets in nobody with its key, not even the hospital's next SuperNode.
        """
        self._processes.ask("supernode", LEAVE)
        self._processes.end()


def serve(node: SuperNode, over: Callable[[], bool], patience: float, deadline: float) -> None:
    """Keep a SuperNode connected until its work is over.

    Args:
        node: The SuperNode.
        over: Says whether the work is over.
        patience: Seconds without a connection after which the SuperLink is given up.
        deadline: Seconds after which all is given up.

    Raises:
        FederationError: The SuperLink did not let it in, or was gone for too long.
    """
    began = last = time.monotonic()
    node.start()
    while not over():
        check_interrupted()
        now = time.monotonic()
        if node.look():
            last = now
        if now - last > patience or now - began > deadline:
            what = "never let it in" if not node.connected else "was gone for too long"
            raise FederationError(
                f"the SuperLink {what} ({now - last:.0f} s without a connection, {node.starts} "
                "starts). Check that this hospital's key is registered and the address right; "
                f"the SuperNode's log ends:\n{tail(node.log)}"
            )
        time.sleep(POLL)
