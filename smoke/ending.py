"""What a smoke command does at its end, whatever has happened before."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

from smoke.table import Table


def attempt(table: Table, name: str, what: str, work: Callable[[], object]) -> None:
    """Do something on which nothing else depends: if it fails, that is a check that did not hold.

    Args:
        table: Gets the check, if it fails.
        name: Its id in the stage.
        what: What shall hold, in words.
        work: What to do.
    """
    try:
        work()
    except Exception as error:  # noqa: BLE001  (whatever it is, what comes after must be done)
        table.check(name, what, False, f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave half of what is taken down."""
    # Not SIG_IGN, which every command started here would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
