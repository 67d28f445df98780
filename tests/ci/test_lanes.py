"""Stages run in their order, side by side, within limits, and none ends in silence."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fedrisk_ci.background import Background
from fedrisk_ci.lanes import Lane, Result, Run, Stage, tails
from tests_processes import runs

from smoke.waits import until

Go = Callable[..., dict[str, Result]]


def stage(name: str, code: str = "pass", **options: Any) -> Stage:
    return Stage(name, (sys.executable, "-c", code), **options)


@pytest.fixture
def shown() -> io.StringIO:
    """What a run has shown."""
    return io.StringIO()


@pytest.fixture
def go(tmp_path: Path, shown: io.StringIO) -> Go:
    """Run lanes to their end."""

    def run(*lanes: list[Stage], limit: float = 120, lane: float = 120) -> dict[str, Result]:
        made = [Lane(tuple(each), lane) for each in lanes]
        ended = Run(made, tmp_path, limit, Background("as others"), shown).run()
        return {each.name: each for each in ended}

    return run


def test_a_stage_waits_for_what_it_needs_in_other_lanes(go: Go, tmp_path: Path) -> None:
    path = repr(str(tmp_path / "made"))
    makes = f"import time; time.sleep(0.5); open({path}, 'w')"
    done = go([stage("reads", f"open({path})", needs=("makes",))], [stage("makes", makes)])
    assert {each.state for each in done.values()} == {"passed"}


def test_a_failure_keeps_only_what_needs_it_from_running(go: Go, shown: io.StringIO) -> None:
    done = go(
        [stage("bad", "print('its own words'); raise SystemExit(4)"), stage("later")],
        [stage("needing", needs=("bad",))],
        [stage("other")],
    )
    assert {name: (each.state, each.reason) for name, each in done.items()} == {
        "bad": ("FAILED", "exit code 4"),
        "later": ("passed", ""),
        "needing": ("not run", "needs bad"),
        "other": ("passed", ""),
    }
    assert "its own words" in shown.getvalue()
    assert "its own words" in tails(list(done.values()))


@pytest.mark.parametrize("slow", ["slow today", ""])
def test_a_stage_stands_apart_where_the_machine_is_slow(
    tmp_path: Path, shown: io.StringIO, slow: str
) -> None:
    path = repr(str(tmp_path / "made"))
    # In its own time the other stage ends, whatever became of it.
    other = f"import time; time.sleep(1.5); open({path}, 'w'); raise SystemExit(1)"
    says = f"import os; print('beside' if not os.path.exists({path}) else 'after')"
    lanes = [
        Lane((stage("own", says, apart=("other",)),), 120),
        Lane((stage("other", other),), 120),
    ]
    Run(lanes, tmp_path, 120, Background("as others"), shown, slow=lambda _: slow).run()
    assert ("\nafter\n" in shown.getvalue()) == bool(slow)
    assert ("own waits for other: slow today" in shown.getvalue()) == bool(slow)


def test_a_stage_may_end_all(go: Go) -> None:
    done = go(
        [stage("first", "1 / 0", ends_all=True)], [stage("long", "import time; time.sleep(600)")]
    )
    assert done["long"].state in ("FAILED", "not run")
    assert "first failed" in done["long"].reason


def test_background_work_gets_its_full_share_once_it_is_alone(tmp_path: Path) -> None:
    weight = tmp_path / "weight"
    weight.write_text("least")
    seen = f"open({str(weight)!r}).read()"
    waits = f"import time\nwhile {seen} != 'full': time.sleep(.1)"
    made = [
        Lane((stage("beside", f"import time; time.sleep(1); assert {seen} == 'least'"),), 120),
        Lane((stage("alone", waits, background=True),), 120),
        Lane((stage("after", f"assert {seen} == 'full'", needs=("alone",)),), 120),
    ]
    how = Background("in a group", group=tmp_path, normal=("weight", "full"))
    ended = Run(made, tmp_path, 120, how, io.StringIO()).run()
    assert {each.state for each in ended} == {"passed"}


@pytest.mark.parametrize("limits", [{"limit": 1.0}, {"lane": 1.0}])
def test_what_hangs_is_ended_at_its_limit(go: Go, tmp_path: Path, limits: Any) -> None:
    code = f"""
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(sleep, start_new_session=True)
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    done = go([stage("hangs", code), stage("later")], **limits)
    assert done["hangs"].state == "FAILED"
    assert "limit" in done["hangs"].reason
    assert done["later"].state == "not run"
    if (tmp_path / "pid").exists():
        assert not runs(int((tmp_path / "pid").read_text()))


def test_cpu_seconds_are_those_of_all_processes(go: Go) -> None:
    spin = "import time\nwhile time.process_time() < 0.4: pass"
    twice = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spin!r}])\n{spin}"
    assert go([stage("spins", twice)])["spins"].cpu > 0.7


def test_a_stage_that_need_not_run_is_skipped_with_the_reason(go: Go) -> None:
    done = go([stage("bad", "1 / 0", skip=lambda: "passed before"), stage("next")])
    assert (done["bad"].state, done["bad"].reason) == ("skipped", "passed before")
    assert done["next"].state == "passed"


def test_an_error_of_the_runner_fails_the_stage(go: Go) -> None:
    def skip() -> str:
        raise OSError("no such record")

    assert go([stage("asks", skip=skip)])["asks"].reason == "OSError: no such record"


@pytest.fixture
def tried(tmp_path: Path) -> Callable[[str], Stage]:
    """A stage of three tests by a Makefile; the second does what is asked in its first try."""

    def make(first_try: str) -> Stage:
        (tmp_path / "Makefile").write_text(
            f"test:\n\t@{sys.executable} -m pytest -c /dev/null"
            f" --rootdir {tmp_path} {tmp_path}/test_it.py $(PYTEST_ARGS)\n"
        )
        (tmp_path / "test_it.py").write_text(
            "from pathlib import Path\n"
            f"here = Path({str(tmp_path)!r})\n"
            "def test_good(): (here / 'good').open('a').write('x')\n"
            "def test_second():\n"
            "    if not (here / 'tried').exists():\n"
            "        (here / 'tried').touch()\n"
            f"        {first_try}\n"
            "def test_third(): assert (here / 'tried').exists()\n"
        )
        command = ("make", "--no-print-directory", "-f", str(tmp_path / "Makefile"), "test")
        return Stage("tests", command, pytest=True, retry=True, arguments=("-q",))

    return make


def test_a_second_try_runs_what_failed_and_is_called_flaky(
    go: Go, tried: Callable[[str], Stage], tmp_path: Path, shown: io.StringIO
) -> None:
    done = go([tried("assert False")])["tests"]
    assert (done.state, done.flaky, done.good) == ("FLAKY", "test_it::test_second", True)
    assert (tmp_path / "good").read_text() == "x"
    assert "1 failed, 2 passed" in shown.getvalue()
    assert "=== tests: FLAKY" in shown.getvalue()


def test_a_stage_has_one_second_try(go: Go, tried: Callable[[str], Stage]) -> None:
    done = go([tried("(here / 'tried').unlink(); assert False")])["tests"]
    assert (done.state, done.flaky, len(done.reports)) == ("FAILED", "", 2)


def test_stopping_a_run_ends_all_lanes(tmp_path: Path, shown: io.StringIO) -> None:
    code = f"open({str(tmp_path / 'up')!r}, 'w'); import time; time.sleep(600)"
    lanes = [Lane((stage("up", code), stage("next")), 600), Lane((stage("x", needs=("up",)),), 600)]
    run = Run(lanes, tmp_path, 600, Background("as others"), shown)
    thread = threading.Thread(target=run.run)
    thread.start()
    until("the stage is up", (tmp_path / "up").exists, 60)
    run.stop("SIGTERM")
    thread.join(120)
    assert not thread.is_alive()
    assert run.results["up"].reason == "stopped: SIGTERM"
    assert {run.results[name].state for name in ("next", "x")} == {"not run"}
    assert not run.passed
