"""Registered versions and their aliases: challenger, champion, previous champion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.registry.champion import CHAMPION, PREVIOUS, aliased
from tasks.telemetry.tracking import RUN_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient


def register(
    connected: MlflowClient, name: str, model_uri: str, identifier: str, run: str, text: str
) -> int:
    """Register a logged model as a version, once a fedrisk run.

    Args:
        connected: From ``tracking.client``.
        name: The registered model's name; it is made if absent.
        model_uri: The logged model.
        identifier: The MLflow run.
        run: The fedrisk run's id, by which a version is found again.
        text: The version's description.

    Returns:
        The version's number.
    """
    from mlflow.exceptions import MlflowException

    try:
        connected.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in connected.search_model_versions(f"name = '{name}'"):
        if version.tags.get(RUN_TAG) == run:
            return int(version.version)
    made = connected.create_model_version(
        name,
        model_uri,
        run_id=identifier,
        tags={RUN_TAG: run},
        description=text,
        model_id=model_uri.removeprefix("models:/"),
    )
    return int(made.version)


def crown(connected: MlflowClient, name: str, version: int) -> int | None:
    """Make a version the champion and keep the former one as ``previous_champion``.

    Done again it changes nothing. Cut off in the middle, the champion is still the former one.

    Args:
        connected: From ``tracking.client``.
        name: The registered model.
        version: The new champion.

    Returns:
        The version that is ``previous_champion`` now; None without one.
    """
    former = aliased(connected, name, CHAMPION)
    if former is not None and int(former.version) != version:
        connected.set_registered_model_alias(name, PREVIOUS, str(former.version))
    connected.set_registered_model_alias(name, CHAMPION, str(version))
    previous = aliased(connected, name, PREVIOUS)
    return int(previous.version) if previous else None
