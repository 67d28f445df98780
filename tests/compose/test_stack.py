"""The compose stack from nothing to a champion and back to nothing (`make compose-smoke`)."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from smoke_checks import assert_held, assert_nothing_else, each_check

from smoke.table import Table

# The first of each part goes through all of its stages.
pytestmark = [pytest.mark.slow, pytest.mark.end_to_end, pytest.mark.timeout(3600)]

BOTH = {
    "alone": "alone",
    "images": "one-revision",
    "up": "healthy",
    "sign-in": "wrong-password dags",
    "trigger": "over-rest unfit form page-trigger-form one-run unpaused",
    "run": "ended took-part champion memory",
    "down": "nothing-left",
}
STACK = BOTH | {
    "isolation": "own-gate api-server gate-hospital-1 nothing-else other-container asks own-bucket"
    " own-prefix list-other read-other write-other write-prefix write-consortium control-closed"
    " own-volumes user stranger",
    "figures": "same-figures",
}
PLATFORM = BOTH | {
    "join": "kit-check joined no-restart",
    "restart": "supernode superlink",
    "pages": "airflow mlflow page-run page-champion",
}


@pytest.mark.stack
@each_check(STACK)
def test_it_holds_of_the_stack(table: Table, stage: str, name: str) -> None:
    assert_held(table, stage, name)


@pytest.mark.stack
def test_nothing_else_was_looked_at(table: Table) -> None:
    assert_nothing_else(table, STACK)


@pytest.mark.stack
def test_ctrl_c_works_again_once_the_stack_is_down(table: Table, ctrl_c: Any) -> None:
    assert table.checks
    assert signal.getsignal(signal.SIGINT) is ctrl_c


@pytest.mark.platform
@each_check(PLATFORM)
def test_it_holds_of_a_stack_that_grows(platform_table: Table, stage: str, name: str) -> None:
    assert_held(platform_table, stage, name)


@pytest.mark.platform
def test_nothing_else_was_looked_at_while_it_grew(platform_table: Table) -> None:
    assert_nothing_else(platform_table, PLATFORM)
