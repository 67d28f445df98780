"""The environment of a step: what the system needs, fedrisk's settings, nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tasks.errors import SettingsError
from tasks.run.steps import CONSORTIUM
from tasks.settings import PREFIX, Settings

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
}
"""Libraries that report home unless told not to."""


_PASSED = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "JAVA_HOME"}
    | {"XDG_CACHE_HOME", "JDK_JAVA_OPTIONS"}
    | {"PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
    | {"CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    | {"http_proxy", "https_proxy", "no_proxy", "OMP_NUM_THREADS", "LD_LIBRARY_PATH"}
)


_SECRETS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})


_PASSED_PREFIXES = ("LC_", "AWS_", "SPARK_", "MLFLOW_")


def step_environment(
    settings: Settings,
    hospital: str | None,
    environment: Mapping[str, str] | None = None,
    *,
    owner: str | None = None,
) -> dict[str, str]:
    """The environment of a step: what the system needs, our settings, and nothing else.

    Args:
        settings: Where things live.
        hospital: A step of one hospital is told only that hospital's lake.
        environment: Where the system's variables come from; this process by default.
        owner: Whose key of the store it gets; the hospital's or the consortium's by default.

    Raises:
        SettingsError: The owner's file of credentials is not there or not sound.
    """
    source = os.environ if environment is None else environment
    found = {
        key: value
        for key, value in source.items()
        if key in _PASSED or key.startswith(_PASSED_PREFIXES)
    }
    found |= QUIET | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    own = settings
    if hospital is not None:
        own = settings.model_copy(update={"lake": settings.lake_root(hospital)})
    if settings.credentials:
        found = {key: value for key, value in found.items() if key not in _SECRETS}
        found |= read_credentials(settings.credentials, owner or hospital or CONSORTIUM)
        own = own.model_copy(update={"credentials": ""})
    return found | settings_environment(own)


def settings_environment(settings: Settings) -> dict[str, str]:
    """The settings as the ``FEDRISK_*`` variables that make them again."""
    values = settings.model_dump(mode="json", exclude_defaults=True)
    values |= {"home": str(settings.home.absolute()), "studies": str(settings.studies.absolute())}
    return {PREFIX + key.upper(): str(value) for key, value in values.items()}


def read_credentials(template: str, owner: str) -> dict[str, str]:
    """Read one owner's keys of the store.

    Args:
        template: Path of the file, with ``{owner}`` in it.
        owner: Whose.

    Raises:
        SettingsError: There is no such file, or a line of it is not ``AWS_NAME=value``.
    """
    path = Path(template.replace("{owner}", owner))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(
            f"FEDRISK_CREDENTIALS: {path} cannot be read ({error.strerror}). Expected the AWS_* "
            f"variables of {owner}."
        ) from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, sign, value = line.partition("=")
        if not sign or not key.startswith("AWS_"):
            raise SettingsError(f"{path}, line {number}: expected AWS_NAME=value.")
        found[key] = value.strip()
    return found
