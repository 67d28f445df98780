"""What all tests share."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from whole_runs import default_run

from tasks.lake.session import close_session

_main = sys.modules["__main__"]
if not hasattr(_main, "__file__"):
    # A worker of pytest-xdist: PySpark, which Great Expectations imports, takes it for a doctest
    # and ends the process.
    _main.__file__ = __file__

__all__ = ["default_run"]
CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout."""
    return CHECKOUT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data, which is not part of the project.

    Its publisher restricts the stroke table, so it stands beside the checkout where the project is
    developed and nowhere else.
    """
    path = CHECKOUT.parent / "shared" / "data"
    if not path.is_dir():
        reason = "the development data stands beside the checkout only where fedrisk is developed"
        if os.environ.get("REQUIRE_SHARED_DATA") == "1":
            pytest.fail(f"this must not be skipped here: {reason}")
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def stroke_csv(shared_data: Path) -> Path:
    """The real stroke table."""
    return shared_data / "stroke" / "healthcare-dataset-stroke-data.csv"


@pytest.fixture(autouse=True)
def no_thread_goes_on() -> Iterator[None]:
    """Let a thread that logs rounds end with its test: it imports MLflow while others patch."""
    yield
    for thread in threading.enumerate():
        if thread.name == "mlflow-rounds":
            thread.join(300)


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, though a shell runs these in its background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish() -> None:
    """End the JVM while there is still somewhere to log to."""
    close_session()
