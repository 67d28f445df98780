"""Start the embedded Airflow for one command, or use the Airflow of a running ``fedrisk up``."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from tasks.files import write_atomically
from tasks.local_airflow.api_client import Airflow, AirflowBusy, AirflowError
from tasks.local_airflow.home import CHECKOUT, POOLS, USER, AirflowHome, free_port
from tasks.local_airflow.sqlite_triggers import never_reuse_triggers
from tasks.local_airflow.supervisor_client import SupervisedProcesses, supervise
from tasks.settings import Settings

PORT = 8080
MIGRATION_DEADLINE = 240.0
START_DEADLINE = 300.0
DAG_DEADLINE = 300.0
PODS_DEADLINE = 60.0
AIRFLOW_POLL = 0.2

Purpose = Literal["run", "up"]


@dataclass(frozen=True)
class Running:
    """A running Airflow.

    Attributes:
        airflow: Its REST client.
        home: Its folder.
        processes: Its processes; None where another command owns them.
        watched: Names of the processes that must keep running.
    """

    airflow: Airflow
    home: AirflowHome
    processes: SupervisedProcesses | None
    watched: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise if one of Airflow's processes has died.

        Raises:
            ProcessDied: A process has ended.
        """
        if self.processes is not None:
            self.processes.check(*self.watched)

    def wait_for_dag(self, dag: str) -> None:
        """Wait until Airflow has read a DAG.

        Raises:
            AirflowError: The time is up; the message contains the import errors.
        """
        deadline = time.monotonic() + DAG_DEADLINE
        while time.monotonic() < deadline:
            self.check()
            found = self.airflow.dag(dag)
            if found is not None and not found["has_import_errors"]:
                return
            if errors := [e for e in self.airflow.import_errors() if e.startswith("retrain.py")]:
                raise AirflowError("Airflow cannot read its DAGs:\n" + "\n".join(errors))
            time.sleep(AIRFLOW_POLL)
        errors = self.airflow.import_errors()
        raise AirflowError(
            f"Airflow has not read DAG {dag} within {DAG_DEADLINE:g} s. "
            + ("Import errors:\n" + "\n".join(errors) if errors else "It has no import errors.")
        )


def prepare(settings: Settings) -> None:
    """Make or update Airflow's database.

    Raises:
        AirflowBusy: Another command uses it.
        AirflowError: The migration took too long.
        ProcessDied: Airflow's migration failed.
    """
    home = AirflowHome(settings)
    with _lock(home, "run"), supervise(settings) as processes:
        home.configure(PORT, schedules=False)
        _migrate(home, processes)


@contextlib.contextmanager
def airflow_running(
    settings: Settings, purpose: Purpose, say: Callable[[str], None]
) -> Iterator[Running]:
    """Provide an Airflow for the duration of the block.

    Args:
        settings: The home and the launcher.
        purpose: ``run`` starts an API server and a scheduler that follows no schedule (and, for
            pods, a triggerer), or uses the Airflow of an ``up`` on the same home; ``up`` starts
            everything.
        say: Prints what is being waited for.

    Raises:
        AirflowBusy: Another command uses this home.
        AirflowError: Airflow did not start in time.
        ProcessDied: One of its processes ended during the start.
    """
    home = AirflowHome(settings)
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(_lock(home, purpose))
        except _SharedAirflow as shared:
            say(f"using the Airflow of `fedrisk up` at {shared.url}")
            yield Running(Airflow(shared.url, USER, home.password()), home, None)
            return
        processes = stack.enter_context(supervise(settings))
        # Concurrent runs must not choose the same free port.
        port = free_port(PORT if purpose == "up" else 0)
        url = home.configure(port, schedules=purpose == "up")
        if not home.prepared.exists():
            say("making Airflow's database (once)")
        _migrate(home, processes)
        watched = _start(home, processes, purpose)
        running = Running(Airflow(url, USER, home.password()), home, processes, watched)
        _wait_until_healthy(running)
        _record_holder(lock, purpose, url)
        yield running


def _start(home: AirflowHome, processes: SupervisedProcesses, purpose: Purpose) -> tuple[str, ...]:
    commands = {
        "api-server": ["api-server"],
        # Logs are on this machine's disk, so they need no server.
        "scheduler": ["scheduler", "--skip-serve-logs"],
    }
    pods = home.settings.launcher == "kubernetes"
    if pods:
        _end_pods_with(home, processes, purpose)
    if purpose == "up":
        commands["dag-processor"] = ["dag-processor"]
    if purpose == "up" or pods:
        # Tasks that run in a pod are deferred.
        commands["triggerer"] = ["triggerer", "--skip-serve-logs"]
    for name, command in commands.items():
        _launch(home, processes, name, *command)
    if purpose == "run":
        # Reading changed DAGs once is cheaper than a DAG processor.
        current = home.fingerprint()
        if not home.dags_read.exists() or home.dags_read.read_text(encoding="utf-8") != current:
            home.dags_read.unlink(missing_ok=True)
            _launch(home, processes, "reading DAGs", "dags", "reserialize")
            _wait_for(processes, "reading DAGs", DAG_DEADLINE)
            write_atomically(home.dags_read, current.encode())
    else:
        home.dags_read.unlink(missing_ok=True)
    return tuple(commands)


def _end_pods_with(home: AirflowHome, processes: SupervisedProcesses, purpose: Purpose) -> None:
    """Delete this Airflow's pods at its end, and those that a killed ``run`` left behind."""
    command = [sys.executable, "-m", "tasks.launch.pods", home.settings.namespace]
    command += [home.airflow_id()]
    log = home.logs / "pods-left.log"
    if purpose == "run":
        # Their runs are about to be marked as failed.
        processes.start("ending pods", command, home.environment(), log, CHECKOUT)
        _wait_for(processes, "ending pods", PODS_DEADLINE)
    log = home.logs / "pods-at-end.log"
    processes.start("pods", command, home.environment(), log, CHECKOUT, last=True)


def _wait_until_healthy(running: Running) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while not running.airflow.healthy():
        running.check()
        if time.monotonic() > deadline:
            raise AirflowError(
                f"Airflow has not started within {START_DEADLINE:g} s; its logs are in "
                f"{running.home.logs}."
            )
        time.sleep(AIRFLOW_POLL)
    for name, (slots, description) in POOLS.items():
        running.airflow.ensure_pool(name, slots, description)


def _migrate(home: AirflowHome, processes: SupervisedProcesses) -> None:
    import importlib.metadata

    version = importlib.metadata.version("apache-airflow")
    known = home.prepared.read_text(encoding="utf-8") if home.prepared.exists() else ""
    if known != version or not home.database.exists():
        home.dags_read.unlink(missing_ok=True)
        _launch(home, processes, "database", "db", "migrate")
        _wait_for(processes, "database", MIGRATION_DEADLINE)
        write_atomically(home.prepared, version.encode())
    never_reuse_triggers(home.database)


def _launch(home: AirflowHome, processes: SupervisedProcesses, name: str, *command: str) -> None:
    log = home.logs / f"{name.replace(' ', '-').lower()}.log"
    processes.start(name, home.command(*command), home.environment(), log, home.path)


def _wait_for(processes: SupervisedProcesses, name: str, limit: float) -> None:
    deadline = time.monotonic() + limit
    while not processes.done(name):
        processes.check()
        if time.monotonic() > deadline:
            raise AirflowError(f"Airflow's {name} took more than {limit:g} s.")
        time.sleep(0.05)


class _SharedAirflow(Exception):  # noqa: N818  (control flow, not an error)
    """Another command runs an Airflow that this one can use."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


@contextlib.contextmanager
def _lock(home: AirflowHome, purpose: Purpose) -> Iterator[IO[str]]:
    """Hold the home's lock; its file names the holder and the address of its Airflow."""
    home.path.mkdir(parents=True, exist_ok=True)
    with (home.path / "lock").open("a+", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        deadline = time.monotonic() + START_DEADLINE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = _read_holder(home.path / "lock")
            other, process = holder.get("purpose"), f"process {holder.get('pid', '?')}"
            if purpose == "up" or other == "run" or time.monotonic() > deadline:
                raise AirflowBusy(
                    f"{home.settings.home} is in use by `fedrisk {other or 'run'}` ({process}). "
                    "Wait for it, use another FEDRISK_HOME, or start `fedrisk up` and let runs "
                    "share its Airflow."
                )
            if holder.get("url"):
                raise _SharedAirflow(str(holder["url"]))
            time.sleep(AIRFLOW_POLL)
        _record_holder(file, purpose, "")
        try:
            yield file
        finally:
            _write(file, "")


def _record_holder(file: IO[str], purpose: Purpose, url: str) -> None:
    _write(file, json.dumps({"pid": os.getpid(), "purpose": purpose, "url": url}))


def _write(file: IO[str], text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _read_holder(path: Path) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found
