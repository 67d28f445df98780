"""``fedrisk step``: run one step in this process; every launcher uses this command."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from tasks.cli.run_options import add_run_options, read_request

if TYPE_CHECKING:
    from tasks.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "step",
        help="run one step of a run",
        description="Run one step of a run. `plan` comes first and takes the run's options; a step "
        "that is done is not repeated.",
    )
    parser.add_argument("name", metavar="NAME", help="plan, champion, deal, collect, ... promote")
    parser.add_argument("--study", required=True, metavar="S", help="name or file")
    parser.add_argument("--run", required=True, metavar="R", dest="run_id", help="the run's id")
    parser.add_argument("--hospital", metavar="H", help="for a step that runs per hospital")
    add_run_options(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run the step and print a line with its duration and rows.

    Raises:
        FedriskError: The step failed.
    """
    if args.name == "plan":
        return _plan(args, settings)
    from tasks.errors import SettingsError
    from tasks.run.plan import read_plan
    from tasks.run.step import run_step
    from tasks.run.steps import STEPS
    from tasks.run.stored_run import open_run

    if args.name in STEPS:
        plan = read_plan(open_run(settings, args.run_id))
        if args.study not in (plan.study.name, plan.study_file):
            raise SettingsError(
                f"run {args.run_id} is of study {plan.study.name}, not of {args.study}."
            )
    manifest = run_step(args.name, args.run_id, settings, args.hospital)
    tables = {name: table.rows for name, table in manifest.tables.items()}
    print(json.dumps({"step": args.name, "seconds": manifest.seconds, "rows": tables}))
    return 0


def _plan(args: argparse.Namespace, settings: Settings) -> int:
    from tasks.errors import SettingsError
    from tasks.run.known_studies import find_known_study
    from tasks.run.plan import make_plan

    if args.hospital is not None:
        raise SettingsError("step plan takes no --hospital; choose the run's with --hospitals.")
    study = find_known_study(args.study, settings)
    plan = make_plan(read_request(args, study), args.run_id, settings)
    print(f"run {plan.run}: study {plan.study.name}, source {plan.source_name}, ", end="")
    print(f"hospitals {', '.join(plan.hospitals)}")
    return 0
