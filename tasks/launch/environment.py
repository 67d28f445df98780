"""The environment of a step: variables of the system and fedrisk's settings, no others."""

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
"""Disables the telemetry of libraries."""


_PASSED = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "JAVA_HOME"}
    | {"XDG_CACHE_HOME", "JDK_JAVA_OPTIONS"}
    | {"PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
    | {"CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    | {"http_proxy", "https_proxy", "no_proxy", "OMP_NUM_THREADS", "LD_LIBRARY_PATH"}
)


_SECRETS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})


_PASSED_PREFIXES = ("LC_", "AWS_", "PG", "SPARK_", "MLFLOW_")
"""``PG*`` is how libpq, which reads a hospital's database, is told user and password."""


def step_environment(
    settings: Settings,
    hospital: str | None,
    environment: Mapping[str, str] | None = None,
    *,
    owner: str | None = None,
) -> dict[str, str]:
    """Build a step's environment: variables of the system and fedrisk's settings, no others.

    Args:
        settings: The settings to pass on.
        hospital: The step's hospital; its step gets that hospital's lake only.
        environment: Source of the system's variables; this process's by default.
        owner: Owner of the store's key; the hospital or the consortium by default.

    Raises:
        SettingsError: The owner's file of credentials is missing or not valid.
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
        found = {
            key: value
            for key, value in found.items()
            if key not in _SECRETS and not key.startswith("PG")
        }
        found |= read_credentials(settings.credentials, owner or hospital or CONSORTIUM)
        own = own.model_copy(update={"credentials": ""})
    return found | settings_environment(own)


def settings_environment(settings: Settings) -> dict[str, str]:
    """The settings as ``FEDRISK_*`` variables, the inverse of ``Settings.from_environment``."""
    values = settings.model_dump(mode="json", exclude_defaults=True)
    values |= {"home": str(settings.home.absolute()), "studies": str(settings.studies.absolute())}
    return {PREFIX + key.upper(): str(value) for key, value in values.items()}


def read_credentials(template: str, owner: str) -> dict[str, str]:
    """Read one owner's keys of the store, and of its database.

    Args:
        template: Path of the file, with ``{owner}`` in it.
        owner: The owner's name.

    Raises:
        SettingsError: There is no such file, or a line is neither ``AWS_NAME=value`` nor
            ``PGNAME=value``.
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
        if not sign or not key.startswith(("AWS_", "PG")):
            raise SettingsError(f"{path}, line {number}: expected AWS_NAME=value or PGNAME=value.")
        found[key] = value.strip()
    return found
