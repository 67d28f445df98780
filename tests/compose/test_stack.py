"""The compose stack from nothing to a champion and back to nothing (`make compose-smoke`)."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from smoke.table import Table

pytestmark = [
    pytest.mark.stack,
    pytest.mark.slow,
    pytest.mark.end_to_end,
    pytest.mark.timeout(2400),
]

HOLDS = {
    "alone": ["nothing is left of an earlier stack"],
    "up": ["all services are healthy or have done their work"],
    "sign-in": ["a wrong password is refused", "the generated password lets in"],
    "isolation": [
        "a hospital reaches the SuperLink and the store",
        "api-server reaches what a hospital must not",
        "gate-hospital-1 reaches what a hospital must not",
        "and nothing else, by name or by address",
        "a hospital cannot reach another's container by its address",
        "the SuperLink's control API is closed to a hospital",
        "a hospital's key opens its own bucket",
        "and is refused at another's, and where runs are handed over",
        "a hospital has its own volumes alone",
        "it runs as user 1000, without capabilities, on a read-only root",
        "a SuperNode without a registered key is turned away",
    ],
    "join": [
        "its kit's own check, before it starts, finds nothing missing",
        "a new hospital joins with its kit",
        "nothing was restarted for it",
    ],
    "trigger": [
        "a run is triggered over REST, and taken back",
        "a value that the form does not take is refused over REST",
        "one run is triggered",
        "its DAG is paused no more",
    ],
    "restart": [
        "a restarted SuperNode joins again",
        "all hospitals join a restarted SuperLink again",
    ],
    "run": [
        "the run ends well, every task of it",
        "all four hospitals took part in all rounds, on the standing federation",
        "MLflow has the champion, and it is this run's model",
        "each service stays within its memory, and none was killed or restarted",
        "figures equal those of the launcher process, within 1e-06",
    ],
    "pages": [
        "Airflow's page answers",
        "MLflow's page answers",
        "the page in a browser: run",
        "the page in a browser: champion",
    ],
    "down": ["nothing is left"],
}
"""What each stage must have looked at: a check that was left out is none that held."""
BY_HAND = [
    ("trigger", "the page in a browser: trigger-form"),
    ("trigger", "the form will let a paused DAG run"),
    ("trigger", "one run is triggered in Airflow's form"),
]


@pytest.mark.parametrize(
    ("stage", "what"), [(stage, what) for stage, all_ in HOLDS.items() for what in all_] + BY_HAND
)
def test_it_holds_of_the_stack(table: Table, stage: str, what: str) -> None:
    made = [c for c in table.checks if c.stage == stage and c.what.startswith(what)]
    assert made, f"stage {stage} never came to it"
    assert [c for c in made if not c.held] == []


def test_ctrl_c_works_again_once_the_stack_is_down(table: Table, ctrl_c: Any) -> None:
    assert table.checks
    assert signal.getsignal(signal.SIGINT) is ctrl_c
