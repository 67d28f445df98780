"""One run as its caller sees it: its tables, its exit code, and nothing left when it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from fedrisk_ci.plan import Service

from smoke.waits import until

RUN = """
import sys
from pathlib import Path
from fedrisk_ci import main, plan
from fedrisk_ci.lanes import Lane, Stage

def stage(name, code, **options):
    return Stage(name, (sys.executable, "-c", code), **options)

def lanes(shared, docker, platform_passed):
    first = stage("first", FIRST)
    return [Lane((first, stage("platform", "print('it ran')", skip=platform_passed)), 600)]

plan.lanes = lanes
plan.services = lambda shared: []
sys.exit(main.main(sys.argv[1:]))
"""


def started(tmp_path: Path, first: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """A run of two small stages, with records of its own."""
    checkout = Path(__file__).parent.parent.parent
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", RUN.replace("FIRST", repr(first)), *arguments],
        env={**environment, "PYTHONPATH": str(checkout / ".ci")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_good_run_ends_with_0_and_is_what_the_next_is_compared_with(tmp_path: Path) -> None:
    for last in ("-", "0"):
        process = started(tmp_path, "print('well')", CI_FULL="1")
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said
        assert "well" in said
        assert "it ran" in said
        row = next(line.split() for line in said.splitlines() if line.startswith("first  "))
        assert (row[2], row[-1]) == (last, "passed")
    assert "CI passed" in said
    assert "background work:" in said


def test_a_failed_run_shows_its_table_and_ends_with_1(tmp_path: Path) -> None:
    process = started(tmp_path, "print('the cause'); raise SystemExit(5)")
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert said.count("the cause") == 2
    assert "stage" in said[said.index("=== times") :]
    assert "it ran" not in said


def test_stages_can_be_named(tmp_path: Path) -> None:
    process = started(tmp_path, "1 / 0", "platform", CI_FULL="1")
    assert "it ran" in process.communicate(timeout=120)[0]
    assert process.returncode == 0
    # A part is nothing to compare a whole run with.
    assert not (tmp_path / "fedrisk" / "ci" / "runs.jsonl").exists()
    process = started(tmp_path, "1 / 0", "platfrom")
    assert "first, platform" in process.communicate(timeout=120)[0]
    assert process.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_nothing_and_shows_its_table(tmp_path: Path, number: int) -> None:
    pid = tmp_path / "pid"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"open({str(pid)!r} + '.new', 'w').write(str(child.pid))\n"
        f"os.rename({str(pid)!r} + '.new', {str(pid)!r})\n"
        "time.sleep(600)"
    )
    process = started(tmp_path, code)
    until("the stage is up", pid.exists, 60)
    process.send_signal(number)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + number
    assert f"stopped: {signal.Signals(number).name}" in said[said.index("=== times") :]
    assert not psutil.pid_exists(int(pid.read_text()))


def test_a_service_that_cannot_be_ended_in_order_does_not_keep_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fedrisk_ci.main import end_services

    made = tmp_path / "ended"
    end_services(
        [Service("x", (), (str(tmp_path / "missing"),)), Service("y", (), ("touch", str(made)))]
    )
    assert made.exists()
    assert "missing" in capsys.readouterr().err
