"""SIGTERM ends a step, even where Python drops the exception that says so."""

from __future__ import annotations

import os
import signal

import pytest

from tasks.federation.deployment.termination import check_interrupted, interruptible


class LosesWhatIsRaised:
    """Python ignores exceptions in a finalizer, as in its hooks around ``fork``."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass


def test_sigterm_is_an_exception() -> None:
    with pytest.raises(SystemExit) as leaving, interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert leaving.value.code == 128 + signal.SIGTERM


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_ends_although_the_exception_was_lost() -> None:
    turns: list[int] = []

    def loop() -> None:
        for turn in range(3):
            check_interrupted()
            turns.append(turn)
            lost = LosesWhatIsRaised()
            del lost

    with interruptible(), pytest.raises(SystemExit):
        loop()
    assert turns == [0]


def test_the_next_step_of_this_process_is_not_ended_by_it() -> None:
    with interruptible():
        check_interrupted()
