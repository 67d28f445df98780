"""Ctrl-C in the middle of the main job, and the same command again."""

from __future__ import annotations

import pytest
from whole_runs import RUN, WholeRun

# The first of them makes the run.
pytestmark = [pytest.mark.slow, pytest.mark.end_to_end, pytest.mark.timeout(3000)]


def test_ctrl_c_ends_every_process_and_keeps_what_is_done(default_run: WholeRun) -> None:
    assert default_run.interrupted.code == 130
    assert default_run.interrupted.left_over == []
    assert any(name.startswith("collect.") for name in default_run.done)
    assert not any(name.startswith("promote") for name in default_run.done)
    assert default_run.half_written == []


def test_the_same_command_continues_to_a_champion(default_run: WholeRun) -> None:
    finished = default_run.finished
    assert finished.code == 0, finished.output[-2000:] + finished.errors[-2000:]
    assert default_run.result["run"] == RUN
    assert finished.left_over == []


def test_no_step_that_was_done_is_done_again(default_run: WholeRun) -> None:
    now = {path.name: path.stat().st_mtime_ns for path in default_run.manifests.glob("*.json")}
    assert {name: now[name] for name in default_run.done} == default_run.done
