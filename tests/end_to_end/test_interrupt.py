"""Ctrl-C in the middle of the main job, and the same command again."""

from __future__ import annotations

from pathlib import Path

import pytest
from whole_runs import RESUMED, ResumedRun

# The first of them makes both runs.
pytestmark = [pytest.mark.slow, pytest.mark.end_to_end, pytest.mark.timeout(1500)]


def manifests(run: ResumedRun) -> Path:
    return run.finished.home / "runs" / RESUMED / "manifests"


def test_ctrl_c_ends_every_process_and_keeps_what_is_done(resumed_run: ResumedRun) -> None:
    assert resumed_run.code == 130
    assert resumed_run.left_over == []
    assert any(name.startswith("collect.") for name in resumed_run.done)
    assert not any(name.startswith("promote") for name in resumed_run.done)
    assert resumed_run.half_written == []


def test_the_same_command_goes_on_from_there_to_a_champion(resumed_run: ResumedRun) -> None:
    finished = resumed_run.finished
    assert finished.code == 0, finished.output[-2000:] + finished.errors[-2000:]
    assert finished.result["run"] == RESUMED
    assert finished.left_over == []


def test_no_step_that_was_done_is_done_again(resumed_run: ResumedRun) -> None:
    now = {path.name: path.stat().st_mtime_ns for path in manifests(resumed_run).glob("*.json")}
    assert {name: now[name] for name in resumed_run.done} == resumed_run.done
