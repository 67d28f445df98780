"""One hospital's SuperNode as a child process: started, and started again while it should run.

Flower's SuperNode ends when the SuperLink is gone for a minute or does not know its key (yet). The
SuperLink may come back, on another machine and with no memory of its nodes, so the
SuperNode is started again, more and more slowly.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from tasks.errors import FederationError
from tasks.federation.deployment.commands import (
    SuperNodeFiles,
    flower_environment,
    supernode_command,
)
from tasks.federation.deployment.identity import known_file
from tasks.federation.deployment.local import free_ports
from tasks.federation.deployment.termination import check_interrupted
from tasks.federation.hospital.config import OWN, STANDING
from tasks.launch.process_tree import ProcessTree, tail
from tasks.settings import Settings

SUPERNODE_POLL = 0.5
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
        authority, key = known_file(own / "ca.crt"), known_file(own / "node.key")
        self._files = SuperNodeFiles(
            hospital, settings.superlink, authority, key, config or STANDING
        )
        self._folder, self._processes = folder, ProcessTree(force=True)
        self.log = folder / "supernode.log"
        self.starts = 0
        self.connected = 0.0
        self._started, self._pause, self._offset = 0.0, 1.0, 0

    def start(self) -> None:
        """Start it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._offset = self.log.stat().st_size if self.log.exists() else 0
        [port] = free_ports(1)
        command = supernode_command(self._files, port, self._folder / "secret", warm=True)
        own = {**os.environ, OWN: self._files.hospital}
        variables = flower_environment(own, self._folder / "flower")
        self.starts += 1
        self._started = time.monotonic()
        self._processes.start("supernode", command, variables, self.log)

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
                    f"the SuperNode of {self._files.hospital} ended; it is started again "
                    f"(start {self.starts + 1})",
                    flush=True,
                )
                # What its forks left would stay behind as zombies.
                self._processes.end()
                self.start()
            return False
        if self.connected < self._started and self._let_in():
            self.connected = now
            print(f"{self._files.hospital} has joined {self._files.superlink}", flush=True)
        return self.connected >= self._started

    def _let_in(self) -> bool:
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(self._offset)
            return CONNECTED.encode() in file.read()
        return False

    def end(self) -> None:
        """End it and all that it started.

        It is asked first: then it takes leave of the SuperLink, which otherwise takes it for alive
        for a minute and refuses its key, to the hospital's next SuperNode too.
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
        time.sleep(SUPERNODE_POLL)
