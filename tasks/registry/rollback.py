"""Roll back to the previous champion: the two aliases are swapped, nothing is trained."""

from __future__ import annotations

from tasks.errors import SettingsError
from tasks.registry.champion import CHAMPION, PREVIOUS, aliased, registered_name
from tasks.settings import Settings
from tasks.telemetry.tracking import client, locked, mlflow_errors


def rollback(study: str, settings: Settings) -> tuple[int, int]:
    """Swap champion and previous champion.

    Args:
        study: The study's name.
        settings: Where MLflow is.

    Returns:
        The version that is champion now, and the one that was.

    Raises:
        SettingsError: There is no champion, or no previous one to go back to.
        TrackingError: MLflow does not answer.
    """
    connected, name = client(settings), registered_name(study)
    with locked(settings), mlflow_errors(settings, f"roll {name} back"):
        now, before = (aliased(connected, name, alias) for alias in (CHAMPION, PREVIOUS))
        if now is None or before is None:
            lacks = CHAMPION if now is None else PREVIOUS
            raise SettingsError(
                f"{name} has no version with the alias {lacks}, so there is nothing to go back "
                "to. A champion's successor makes one."
            )
        connected.set_registered_model_alias(name, CHAMPION, str(before.version))
        connected.set_registered_model_alias(name, PREVIOUS, str(now.version))
    return int(before.version), int(now.version)
