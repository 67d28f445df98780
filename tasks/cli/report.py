"""``fedrisk report``: where a run's report is."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("report", help="print the path of a run's report")
    parser.add_argument("run_id", metavar="RUN", help="as `fedrisk runs` lists it")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the path.

    Raises:
        SettingsError: There is no such run.
        DataError: The run has made no report.
    """
    from tasks.errors import DataError, SettingsError
    from tasks.run.stored_run import open_run

    folder = open_run(settings, args.run_id)
    if not folder.fetch("plan.json").exists():
        raise SettingsError(
            f"no run {args.run_id} in {settings.runs}; `fedrisk runs` lists what there is."
        )
    file = folder.read("evaluate").files.get("report")
    if file is None:
        raise DataError(f"run {args.run_id}: its evaluation has left no report.")
    print(folder.path / file)
    return 0
