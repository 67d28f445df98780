"""Where the command stands: its settings, with the checkout's studies if there are none here."""

from __future__ import annotations

import os
from pathlib import Path

import tasks
from tasks.settings import PREFIX, Settings


def command_settings() -> Settings:
    """The settings of the environment.

    The default folder of studies is looked for in the working folder, then in the checkout.

    Raises:
        SettingsError: A ``FEDRISK_*`` variable is unknown or wrong.
    """
    settings = Settings.from_environment()
    if f"{PREFIX}STUDIES" in os.environ or settings.studies.is_dir():
        return settings
    beside = Path(tasks.__file__).parent.parent / "dags" / "studies"
    return settings.model_copy(update={"studies": beside}) if beside.is_dir() else settings
