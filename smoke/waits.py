"""Waits of the smoke commands, each with an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class NotReached(Exception):  # noqa: N818  (the name is the message)
    """What was waited for did not come to pass in time."""


def until(what: str, look: Callable[[], Any], limit: float, every: float = 0.5) -> Any:
    """Wait for something to be true and return it.

    Args:
        what: What is waited for, for the message.
        look: Called until its result is true.
        limit: Seconds.
        every: Seconds between two looks.

    Raises:
        NotReached: It did not come to pass.
    """
    end = time.monotonic() + limit
    while not (found := look()):
        if time.monotonic() > end:
            raise NotReached(f"after {limit:.0f} s still waiting until {what}")
        time.sleep(every)
    return found


def remaining(look: Callable[[], Any], limit: float, every: float = 0.5) -> Any:
    """Wait for something to go, and return what is left of it for a check to judge.

    Args:
        look: What there is of it.
        limit: Seconds.
        every: Seconds between two looks.

    Returns:
        What the last look found: nothing as soon as it is gone.
    """
    end = time.monotonic() + limit
    while (found := look()) and time.monotonic() <= end:
        time.sleep(every)
    return found
