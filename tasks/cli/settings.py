"""The command's settings: the environment's, with the checkout's studies as a fallback."""

from __future__ import annotations

import os
from pathlib import Path

import tasks
from tasks.settings import PREFIX, Settings


def command_settings() -> Settings:
    """Read the settings from the environment.

    The default folder of studies is searched in the working folder, then in the checkout.

    Raises:
        SettingsError: A ``FEDRISK_*`` variable is unknown or not valid.
    """
    settings = Settings.from_environment()
    if f"{PREFIX}STUDIES" in os.environ or settings.studies.is_dir():
        return settings
    shipped = Path(tasks.__file__).parent.parent / "dags" / "studies"
    return settings.model_copy(update={"studies": shipped}) if shipped.is_dir() else settings
