"""Run all stages or those that are named, show what they took, and end with one exit code."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from fedrisk_ci import plan, platform_key
from fedrisk_ci.background import background, share
from fedrisk_ci.junit import closing_line, folder_seconds
from fedrisk_ci.lanes import Lane, Result, Run, tails
from fedrisk_ci.records import RECENT, Records, cache, folder_table, stage_table

CHECKOUT = Path(__file__).parent.parent.parent
SHARED = CHECKOUT.parent / "shared"
BUDGETS = CHECKOUT / ".ci" / "budgets.toml"
END_SERVICE = 120
"""Seconds that ending an engine or a cluster may take."""
STOPPED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_lanes(
    lanes: Sequence[Lane], limit: float, records: Records, budgets: dict[str, float]
) -> tuple[int, list[Result], dict[str, float]]:
    """Run lanes and show what they took, whatever becomes of them.

    Args:
        lanes: What is run.
        limit: Seconds for the whole.
        records: The former runs.
        budgets: Seconds of each test folder.

    Returns:
        The exit code, the results, and the seconds of each test folder.
    """
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="fedrisk-ci-"))
    # What several stages need is made once, and found here (tests/made_once.py).
    os.environ["CI_SHARED"] = str(folder / "shared")
    code = 0
    try:
        with background(f"fedrisk-ci-{os.getpid()}") as how:
            if any(stage.background for lane in lanes for stage in lane.stages):
                print(f"background work: {how.how}; beside a busy process on the same CPU")
                print(f"it gets {share(how):.1%} of it", flush=True)
            run = Run(lanes, folder, limit, how, slow=records.slow)
            results = list(run.results.values())

            def stop(number: int, _: object) -> None:
                nonlocal code
                code = 128 + number
                run.stop(signal.Signals(number).name)

            for each in STOPPED:
                signal.signal(each, stop)
            try:
                run.run()
            finally:
                # A second one must not keep tables from being shown, nor services running.
                for each in STOPPED:
                    signal.signal(each, signal.SIG_IGN)
                whole = Result("whole-run", "passed" if run.passed else "FAILED")
                whole.wall = time.monotonic() - began
                whole.cpu = sum(each.cpu for each in results)
                results.append(whole)
                reports = [report for each in results for report in each.reports]
                folders = folder_seconds(reports)
                print(f"\n=== times\n{stage_table(results, records)}")
                if folders:
                    print(f"\n{folder_table(folders, budgets)}")
                print(tails(results[:-1]))
                print(f"\ntests: {closing_line(reports)}", flush=True)
        for check in (each.flaky for each in results if each.flaky):
            print(f"FLAKY: {check}")
        again = records.flaky_again(results)
        for check in again:
            print(f"FAILED: {check} was flaky in one of the last {RECENT} runs too")
        if not run.passed or again:
            code = code or 1
        return code, results, folders
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def end_services(started: Sequence[plan.Service]) -> None:
    """End what this run has started and is no process of its own."""
    for each in started:
        try:
            subprocess.run(
                each.end,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=END_SERVICE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"{each.end[0]}: {error}", file=sys.stderr)


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    # For this program alone: the stages have Python paths of their own.
    os.environ.pop("PYTHONPATH", None)
    passes = platform_key.Passes(cache() / "platform.json")
    judged: dict[str, str] = {}

    def platform_passed(stage: str) -> str:
        about = platform_key.patterns_of(stage)
        found = platform_key.key(CHECKOUT, about, platform_key.toolchain(SHARED))
        judged[stage] = found and f"{stage}-{found}"
        return "" if os.environ.get("CI_FULL") == "1" else passes.found(judged[stage], time.time())

    docker = plan.answers(("docker", "info"))
    lanes = plan.lanes(SHARED, docker, platform_passed)
    names = [stage.name for lane in lanes for stage in lane.stages]
    parser = argparse.ArgumentParser(prog=".ci/run", description=__doc__)
    parser.add_argument("stage", nargs="*", help="only these stages")
    chosen = parser.parse_args(arguments).stage
    if set(chosen) - set(names):
        unknown = ", ".join(sorted(set(chosen) - set(names)))
        parser.error(f"no stage {unknown}; there are: {', '.join(names)}")
    if chosen:
        lanes = [
            Lane(tuple(s for s in lane.stages if s.name in chosen), lane.limit) for lane in lanes
        ]
    # Services that are asked for by name are wanted after the run.
    started = [
        each
        for each in plan.services(SHARED)
        if not chosen and each.started_by in names and not plan.answers(each.runs)
    ]
    records = Records(cache() / "runs.jsonl")
    try:
        code, results, folders = run_lanes(
            lanes, plan.LIMIT, records, tomllib.loads(BUDGETS.read_text())["seconds"]
        )
        ended = {each.name: each.state for each in results}
        revision = platform_key.output("git", "rev-parse", "HEAD", cwd=CHECKOUT)
        if not chosen:
            records.add(results, folders, revision, code)
        for stage, key in judged.items():
            if ended[stage] in ("passed", "FLAKY"):
                passes.add(key, revision, time.time())
    finally:
        end_services(started)
    print("CI passed" if code == 0 else f"CI FAILED ({code})", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
