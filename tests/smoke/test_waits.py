"""The waits of the smoke commands."""

from __future__ import annotations

import pytest

from smoke.waits import NotReached, remaining, until


def test_what_has_gone_leaves_nothing() -> None:
    looks = iter((["a", "b"], ["b"], []))
    assert remaining(lambda: next(looks), 60, every=0) == []


def test_what_stays_is_what_remains_at_the_limit() -> None:
    assert remaining(lambda: ["a"], 0.05, every=0.01) == ["a"]


def test_what_was_waited_for_is_returned_or_named() -> None:
    looks = iter(("", "there"))
    assert until("it is there", lambda: next(looks), 60, every=0) == "there"
    with pytest.raises(NotReached, match="until it is there"):
        until("it is there", lambda: False, 0.05, every=0.01)
