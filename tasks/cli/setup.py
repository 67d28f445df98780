"""``fedrisk setup``: prepare what a first run would otherwise wait for."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    subparsers.add_parser(
        "setup", help="make the databases and Spark's class archive; instant where they exist"
    )


def run(_args: argparse.Namespace, settings: Settings) -> int:
    """Prepare the lake, MLflow and Airflow, one after the other.

    Raises:
        FedriskError: One of them could not be made.
    """
    from tasks.lake.setup import prepare as prepare_lake
    from tasks.local_airflow.server import prepare as prepare_airflow
    from tasks.telemetry.tracking import prepare as prepare_tracking

    steps: dict[str, Callable[[Settings], None]] = {
        "Spark and the lake": prepare_lake,
        "MLflow's database": prepare_tracking,
        "Airflow's database": prepare_airflow,
    }
    for name, prepare in steps.items():
        started = time.monotonic()
        print(f"{name} ...", end=" ", flush=True)
        prepare(settings)
        print(f"ready ({time.monotonic() - started:.1f} s)", flush=True)
    return 0
