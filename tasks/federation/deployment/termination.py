"""SIGTERM as an exception, so that a step which is ended puts everything away."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

_asked: list[int] = []


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the step as Ctrl-C does: by an exception."""

    def leave(number: int, _: object) -> None:
        _asked.append(number)
        raise SystemExit(128 + number)

    _asked.clear()
    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not in the main thread: the thread's starter handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_interrupted() -> None:
    """End a loop whose exception was lost.

    Python ignores what a signal's handler raises within a hook around ``fork`` or a finalizer, so
    loops that start processes ask once a turn.

    Raises:
        SystemExit: SIGTERM has come.
    """
    if _asked:
        raise SystemExit(128 + _asked[0])
