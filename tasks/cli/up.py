"""``fedrisk up``: run Airflow and MLflow on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.local_airflow.server import Running
    from tasks.settings import Settings

MLFLOW_PORT = 5000
MLFLOW_DEADLINE = 120.0


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    subparsers.add_parser(
        "up",
        help="run Airflow's UI and scheduler and MLflow's UI until Ctrl-C",
        description="Start Airflow (UI, scheduler, DAG processor, triggerer) and MLflow's UI on "
        "this machine. `fedrisk run` in another terminal uses this Airflow.",
    )


def run(_args: argparse.Namespace, settings: Settings) -> int:
    """Start all services, print their addresses, and stop them on Ctrl-C.

    Raises:
        FedriskError: A service did not start, or died.
    """
    from tasks.local_airflow.home import USER
    from tasks.local_airflow.server import airflow_running

    def say(text: str) -> None:
        print(text, flush=True)

    say("starting Airflow and MLflow ...")
    with airflow_running(settings, "up", say) as running:
        url = _mlflow(running, settings)
        say(f"Airflow  {running.airflow.url}  sign in as {USER}, {running.home.password()}")
        say(f"MLflow   {url}")
        say(f"logs     {running.home.logs}")
        say("DAGs that are not paused run on their schedules. Ctrl-C stops everything.")
        try:
            while True:
                running.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            say("stopping ...")
    return 0


def _mlflow(running: Running, settings: Settings) -> str:
    from tasks.errors import FedriskError
    from tasks.local_airflow.home import free_port
    from tasks.local_airflow.supervisor_client import ProcessDied
    from tasks.telemetry.tracking import prepare

    if settings.mlflow_uri.startswith(("http://", "https://")):
        return settings.mlflow_uri
    if running.processes is None:
        raise ProcessDied("another command owns this Airflow, so MLflow cannot be started here.")
    prepare(settings)
    port = free_port(MLFLOW_PORT)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", settings.tracking_uri]
    command += ["--default-artifact-root", (settings.home / "mlflow" / "artifacts").as_uri()]
    # Only the UI is needed, not the nine processes for evaluation jobs.
    environment = {**running.home.environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = running.home.logs / "mlflow.log"
    running.processes.start("mlflow", command, environment, log, settings.home)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + MLFLOW_DEADLINE
    while time.monotonic() < deadline:
        running.processes.check("mlflow")
        try:
            with opener.open(f"{url}/health", timeout=5) as reply:
                if reply.status == 200:
                    return url
        except OSError:
            time.sleep(0.3)
    raise FedriskError(f"MLflow has not come up within {MLFLOW_DEADLINE:g} s; its log is {log}.")
