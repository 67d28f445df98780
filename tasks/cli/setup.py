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
    parser = subparsers.add_parser(
        "setup", help="make MLflow's and Airflow's databases; instant where they exist"
    )
    parser.add_argument(
        "--spark",
        action="store_true",
        help="also fetch Spark's jars and make the archive of its classes, for the engine spark",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Prepare MLflow, Airflow and, where it is asked for, Spark, one after the other.

    Raises:
        FedriskError: One of them could not be made.
    """
    from tasks.lake.setup import prepare as prepare_lake
    from tasks.local_airflow.server import prepare as prepare_airflow
    from tasks.telemetry.tracking import prepare as prepare_tracking

    steps: dict[str, Callable[[Settings], None]] = {
        "MLflow's database": prepare_tracking,
        "Airflow's database": prepare_airflow,
    }
    if args.spark:
        steps["Spark and the lake"] = prepare_lake
    for name, prepare in steps.items():
        started = time.monotonic()
        print(f"{name} ...", end=" ", flush=True)
        prepare(settings)
        print(f"ready ({time.monotonic() - started:.1f} s)", flush=True)
    return 0
