"""``fedrisk run``: the retraining DAG of one study, from start to champion, on this machine."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tasks.cli.run_options import add_run_options, read_request
from tasks.errors import SettingsError

if TYPE_CHECKING:
    from tasks.local_airflow.server import Running
    from tasks.run.plan import Plan, Request
    from tasks.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "run",
        help="retrain a study's model on this machine",
        description="Run the DAG retrain_<study> on an Airflow that is started for it, or on that "
        "of `fedrisk up`.",
    )
    parser.add_argument("--study", default="stroke", metavar="stroke|heart|FILE")
    add_run_options(parser)
    parser.add_argument(
        "--run", dest="run_id", metavar="ID", help="the run's id; an unfinished one goes on"
    )
    parser.add_argument(
        "--json", action="store_true", help="end with one line of JSON; progress goes to stderr"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run the DAG and show how it goes.

    Returns:
        The exit code of the step that failed, or 0.

    Raises:
        FedriskError: The study or a choice is not sound, or Airflow could not run it.
    """
    from tasks.cli.run_summary import show, summarize_run
    from tasks.local_airflow.server import airflow_running
    from tasks.run.folder import RunFolder
    from tasks.run.known_studies import find_known_study, register_study
    from tasks.run.limits import run_limit
    from tasks.run.plan import make_plan
    from tasks.run.run_id import run_of
    from tasks.run.stored_run import open_run
    from tasks.study import read_study

    started = time.monotonic()

    def say(text: str) -> None:
        print(text, file=sys.stderr if args.json else sys.stdout, flush=True)

    file = find_known_study(args.study, settings)
    request = read_request(args, file)
    study = read_study(file)
    name = study.name
    run_id = args.run_id or _new_run_id(settings, name)
    RunFolder(settings.runs, run_id)
    # The plan is made before Airflow starts, so that what cannot work is refused at once.
    plan = make_plan(request, run_of(run_id, name), settings)
    _check_unchanged(plan, request)
    register_study(file, name, settings)
    hospitals = ", ".join(plan.hospitals)
    say(f"run {plan.run}: study {name}, source {plan.source_name}, hospitals {hospitals}")
    with airflow_running(settings, "run", say) as running:
        running.wait_for_dag(f"retrain_{name}")
        start = time.monotonic() - started
        say(f"Airflow is at work after {start:.1f} s")
        asked = _Trigger(run_id, _conf(request), run_limit(study, settings))
        state = _run_in_airflow(running, plan, asked, say)
    folder = open_run(settings, plan.run)
    outcome = summarize_run(plan, folder, state, start, time.monotonic() - started)
    show(outcome, say)
    if args.json:
        print(json.dumps(outcome.result, allow_nan=False), flush=True)
    if outcome.message:
        print(f"error: {outcome.message}", file=sys.stderr)
    return outcome.code


@dataclass(frozen=True)
class _Trigger:
    """What Airflow is asked for.

    Attributes:
        run: The run's id in Airflow, which may be one that Airflow has made.
        conf: The filled-in form.
        limit: Seconds that the DAG gives a run.
    """

    run: str
    conf: dict[str, Any]
    limit: float


def _new_run_id(settings: Settings, study: str) -> str:
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{study}"
    number = 1
    while (settings.runs / f"{now}-{number}").exists():
        number += 1
    return f"{now}-{number}"


def _check_unchanged(plan: Plan, request: Request) -> None:
    """Refuse to go on with a run of the same study that was planned for something else."""
    overrides = request.all_overrides()
    hospitals = [h for h in plan.study.hospitals if h in request.hospitals]
    other = {
        "source": request.source is not None and plan.source != request.source,
        "hospitals": bool(hospitals) and hospitals != plan.hospitals,
        "settings": bool(overrides) and overrides != plan.overrides,
    }
    if changed := [key for key, differs in other.items() if differs]:
        raise SettingsError(
            f"run {plan.run} is there with another {' and '.join(changed)} (source "
            f"{plan.source_name}, overrides {plan.overrides}), and a "
            "run's plan does not change: leave --run out, or ask for the same."
        )


def _conf(request: Request) -> dict[str, Any]:
    """The request as the trigger form has it: what was not given is left to the form."""
    given: dict[str, Any] = request.model_dump(exclude_defaults=True, exclude={"study"})
    return given


def _run_in_airflow(
    running: Running, plan: Plan, asked: _Trigger, say: Callable[[str], None]
) -> str:
    from tasks.cli.follow import follow
    from tasks.local_airflow.api_client import AirflowError, AlreadyExists

    airflow, dag = running.airflow, f"retrain_{plan.study.name}"
    if running.processes is not None:
        # Of other studies too: this Airflow would go on with them.
        for its, orphan in airflow.active_runs():
            say(f"run {orphan} was interrupted before; it is marked as failed")
            airflow.fail(its, orphan)
    was_paused = bool((airflow.dag(dag) or {}).get("is_paused"))
    airflow.set_paused(dag, False)
    try:
        try:
            airflow.trigger(dag, asked.run, asked.conf)
        except AlreadyExists:
            if airflow.resume(dag, asked.run):
                say(f"run {plan.run} is there: going on with what is not done")
            else:
                say(f"run {plan.run} is there and done")
        return follow(running, dag, asked.run, plan, asked.limit, say)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            say(f"interrupted; with --run {asked.run} the run goes on from here")
        try:
            # Whoever presses Ctrl-C does not wait for a busy server; the next command marks it.
            airflow.fail(dag, asked.run, tries=1)
        except (AirflowError, OSError) as fault:
            say(f"could not mark the run as failed: {fault}")
        raise
    finally:
        if was_paused:
            try:
                airflow.set_paused(dag, True)
            except (AirflowError, OSError) as error:
                say(f"could not pause {dag} again: {error}")
