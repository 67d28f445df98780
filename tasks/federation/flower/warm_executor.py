"""ClientApps that fork from a warm interpreter, through Flower's private API.

Stock Flower starts a new interpreter for every message (seven CPU-seconds of imports) and sleeps
for seconds between looks. Here a hospital's process imports Flower, torch and the app and reads
its rows once; it then is the SuperNode, and a fork of it a SuperExec whose executor forks once
more for each message. What runs in that fork is the installed ``client_app.py`` beside this file:
the bundle that came over the network is not even unpacked. ``federation.executor: stock`` does
without this file. What is changed in the SuperLink is in ``superlink_patches.py``, and ``forks.py``
takes Flower's exit handlers off a fork; nothing else uses Flower's private API. Its version is
pinned, and a test fails when what is used here changes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.federation.flower.forks import Shared, done_in_a_fork, run_and_exit

FLOWER = "1.41.0"
"""The version whose private API this file is written for."""
MESSAGE_POLL = 0.2
"""Seconds between looks for messages and replies; shorter costs a third of a core when idle."""
START_WITHIN = 120.0
"""Seconds that a port or a file of another process is waited for."""


class _ShortSleep:
    """Stands for ``time`` in Flower's SuperNode loop, which sleeps 3 s and .5 s."""

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, MESSAGE_POLL))


def _shorten_back_off() -> None:
    """Look for an object that is on its way after .1 s instead of 1 s, and not for two hours."""
    from flwr.supercore.inflatable import inflatable_utils

    for pull in (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree):
        pull.__kwdefaults__.update(initial_backoff=0.1, backoff_cap=1.0, max_time=20.0)


class ForkExecutor:
    """Flower's ``Executor`` protocol: each task is a fork of this process."""

    def __init__(
        self, run: Callable[[Any], None], failed: Callable[[int], None] | None = None
    ) -> None:
        """Say what a fork does.

        Args:
            run: Called in the child with Flower's ``ExecutionSpec``.
            failed: Called with the wait status of a child that did not end well.
        """
        self._run, self._failed = run, failed
        self._children: set[int] = set()

    def get_eligible_capacity(
        self, supported_task_types: set[Any], **_: Any
    ) -> tuple[set[Any], set[str]]:
        """Any task at any time."""
        return supported_task_types, set()

    def wait_for_capacity(self, *_: Any, **__: Any) -> None:
        """There is always capacity."""

    def launch(self, spec: Any) -> Any:
        """Fork, and run the task in the child."""
        from flwr.supercore.superexec.executor import LaunchResult

        try:
            child = os.fork()
        except OSError as error:
            # No memory, or too many processes: this task fails, and the next one may not.
            return LaunchResult.failed(f"no process for the task: {error.strerror}")
        if child == 0:
            run_and_exit(lambda: self._run(spec))
        self._children.add(child)
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Reap the children that have ended."""
        for child in list(self._children):
            status = 0
            with contextlib.suppress(ChildProcessError):
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended == 0:
                    continue
            self._children.discard(child)
            if status and self._failed is not None:
                self._failed(status)

    def close(self) -> None:
        """End the children that still run."""
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def _run_client(spec: Any) -> None:
    from flwr.supernode.runtime import run_clientapp as module

    from tasks.federation.flower.client_app import app

    module.install_from_fab = lambda *_, **__: None
    module.get_project_dir = lambda *_, **__: Path()
    module.get_load_client_app_fn = lambda **_: lambda *__: app
    module.run_clientapp(spec.runtime_api_address, spec.token, insecure=True)


def _run_server(spec: Any) -> None:
    from queue import Queue

    from flwr.superlink.runtime.run_serverapp import run_serverapp

    certificates = Path(spec.root_certificates_path).read_bytes()
    run_serverapp(spec.runtime_api_address, Queue(), spec.token, False, certificates)


def _end_group(status: int) -> None:
    """Without its ServerApp the SuperLink would wait without end: so it ends too."""
    print(f"the ServerApp ended with wait status {status}", flush=True)
    os.killpg(0, signal.SIGKILL)


def _superexec(
    run: Callable[[Any], None],
    port: int,
    secret: Path,
    authority: str | None,
    failed: Callable[[int], None] | None = None,
) -> None:
    """Ask the process beside this one for tasks, until it is ended."""
    from flwr.supercore.superexec import run_superexec as module

    # Its AcquireTask poll is Flower's own setting.
    os.environ["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] = str(MESSAGE_POLL)
    module.get_executor = lambda *_, **__: ForkExecutor(run, failed)
    wait_for_port(port)
    module.run_superexec(
        runtime_api_address=f"127.0.0.1:{port}",
        insecure=authority is None,
        root_certificates_path=authority,
        superexec_auth_secret=secret.read_bytes(),
    )


def wait_for_port(port: int, deadline: float = START_WITHIN) -> None:
    """Wait until something listens on a port of this machine.

    Raises:
        TimeoutError: Nothing did in time.
    """
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port} after {deadline:g} s")


def _fork(work: Callable[[], None], what: str) -> None:
    """Fork a child and exit when it exits, so that the supervisor restarts both.

    Args:
        work: What the child does, until it is ended.
        what: What it is called.
    """
    child = os.fork()
    if child == 0:
        run_and_exit(work)

    def watch() -> None:
        _, status = os.waitpid(child, 0)
        print(f"the {what} ended with wait status {status}, so this process ends", flush=True)
        os._exit(1)

    # This process forks no more, so a thread does no harm.
    threading.Thread(target=watch, name=f"watch the {what}", daemon=True).start()


def _rows_without_threads(path: Path) -> None:
    """Read the hospital's rows in a child: readers start threads, and this process will fork."""
    from tasks.federation.hospital.client import guarded, prepare
    from tasks.federation.hospital.config import HospitalConfig
    from tasks.federation.hospital.training_rows import read_training_rows
    from tasks.federation.messages import Refusal
    from tasks.federation.wire import Wire

    def read(shared: Shared) -> tuple[list[Any], Wire]:
        config = HospitalConfig.model_validate_json(path.read_bytes())
        found: list[Any] = []

        def rows() -> Wire:
            found.append(read_training_rows(config, shared.empty))
            return {}

        return found, guarded(rows)

    rows, refused = done_in_a_fork(read)
    said = Refusal.decode(refused)
    if rows:
        prepare(path, rows[0])
    elif said is None or not said.later:
        prepare(path, refused=refused)
    # Otherwise nothing is kept: the fork that answers the next question tries to read the rows.


def _supernode(given: argparse.Namespace, rest: list[str]) -> None:
    import obstore
    import torch
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli.flower_supernode import flower_supernode
    from flwr.supernode.runtime import run_clientapp

    from tasks.federation.flower import client_app as client
    from tasks.model import training

    del obstore, run_clientapp, client, training
    # A thread of torch would not survive the fork, but its locks would.
    torch.set_num_threads(1)
    _shorten_back_off()
    if given.config:
        _rows_without_threads(given.config)
    _fork(lambda: _superexec(_run_client, given.port, given.secret, None), "SuperExec")
    start_client_internal.time = _ShortSleep
    end = time.monotonic() + START_WITHIN
    while given.after and not given.after.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{given.after} is not there after {START_WITHIN:g} s")
        time.sleep(0.05)
    sys.argv = [
        *("flower-supernode", *rest, "--isolation", "process", "--port", str(given.port)),
        *("--superexec-auth-secret-file", str(given.secret)),
    ]
    flower_supernode()
    # The connection is lost, and Flower will not try again; but the thread of its server would keep
    # the process, and its supervisor would see it run.
    print("the connection to the SuperLink is lost", flush=True)
    os._exit(1)


def _superlink(given: argparse.Namespace, rest: list[str]) -> None:
    from flwr.superlink.cli.flower_superlink import flower_superlink
    from flwr.superlink.runtime import run_serverapp

    from tasks.federation.flower import server_app
    from tasks.federation.flower import superlink_patches as superlink

    del run_serverapp, server_app
    _shorten_back_off()
    superlink.close_control()
    superlink.forget_unregistered_keys()
    failed = None if given.standing else _end_group
    _fork(
        lambda: _superexec(_run_server, given.port, given.secret, given.authority, failed),
        "SuperExec",
    )
    sys.argv = [
        *("flower-superlink", *rest, "--isolation", "process", "--port", str(given.port)),
        *("--superexec-auth-secret-file", str(given.secret)),
    ]
    flower_superlink()


def main() -> None:
    """``python -m`` this module ``superlink|supernode ... -- FLOWER'S ARGUMENTS``."""
    from flwr.supercore.version import package_version

    if package_version != FLOWER:
        raise SystemExit(
            f"{__name__} is written for flwr {FLOWER}, not {package_version}: set "
            "federation.executor: stock, or port it."
        )
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["superlink", "supernode"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--secret", type=Path, required=True)
    parser.add_argument("--authority")
    parser.add_argument("--hospital", help="for people who look at the list of processes")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--standing", action="store_true", help="outlive a failed ServerApp")
    parser.add_argument("--after", type=Path, help="file to wait for before joining")
    split = sys.argv.index("--")
    given, rest = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    if given.role == "superlink":
        _superlink(given, rest)
    else:
        _supernode(given, rest)


if __name__ == "__main__":
    main()
