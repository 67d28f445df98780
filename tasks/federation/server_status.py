"""The mark that a run's server will not come back, so that hospitals need not wait for it.

The server itself leaves it when another attempt is of no use. The launcher of the steps leaves it
too, for a server that was killed, never started or has used its last attempt. Each new attempt of
the step ``federated`` removes it. Light: Airflow imports it.
"""

from __future__ import annotations

from tasks.errors import ExitCode, FedriskError
from tasks.files import write_atomically
from tasks.objects import get, put, remove
from tasks.run.folder import RunFolder
from tasks.run.steps import CONSORTIUM
from tasks.settings import Settings

ENDED = "files/federated/ended"
"""The mark's place in the run's folder."""


class ServerEnded(FedriskError):  # noqa: N818  (it says what is the matter)
    """The run's server has ended without a model and will not come back."""

    exit_code = ExitCode.REFUSED


def mark_ended(settings: Settings, run: str) -> None:
    """Say that the run's server will not come back; needs the consortium's key.

    Args:
        settings: Where runs and the store are.
        run: The run's id.

    Raises:
        DataError: The store refuses this party's key.
        StoreUnavailable: It does not answer.
    """
    if settings.store:
        put(settings.store, f"{CONSORTIUM}/{run}/{ENDED}", b"")
    else:
        write_atomically(RunFolder(settings.runs, run).path / ENDED, b"")


def unmark_ended(settings: Settings, run: str) -> None:
    """Say that the run's server is coming (again); needs the consortium's key.

    Args:
        settings: Where runs and the store are.
        run: The run's id.

    Raises:
        DataError: The store refuses this party's key.
        StoreUnavailable: It does not answer.
    """
    if settings.store:
        remove(settings.store, f"{CONSORTIUM}/{run}/{ENDED}")
    # A working copy, which would come back into the store with the step's other files.
    (RunFolder(settings.runs, run).path / ENDED).unlink(missing_ok=True)


def is_ended(settings: Settings, run: str) -> bool:
    """Whether the run's server will not come back.

    Args:
        settings: Where runs and the store are.
        run: The run's id.

    Raises:
        DataError: The store refuses this party's key.
        StoreUnavailable: It does not answer.
    """
    if settings.store:
        return get(settings.store, f"{CONSORTIUM}/{run}/{ENDED}") is not None
    return (RunFolder(settings.runs, run).path / ENDED).exists()
