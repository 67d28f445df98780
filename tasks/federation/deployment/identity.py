"""Certificates and registered keys that a SuperLink is given."""

from __future__ import annotations

from pathlib import Path

from tasks.errors import SettingsError
from tasks.federation.deployment.certificates import (
    Certificates,
    make_certificates,
)
from tasks.settings import Settings


def certificates_of(settings: Settings, folder: Path) -> Certificates:
    """The SuperLink's certificates: its identity's, or new ones.

    Args:
        settings: ``identity`` names the folder with ``ca.crt``, ``tls.crt`` and ``tls.key``.
        folder: Where new ones are made.

    Raises:
        SettingsError: A file of the identity is not there.
    """
    if not settings.identity:
        return make_certificates(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = Path(settings.identity)
    return Certificates(*(known_file(own / name) for name in ("ca.crt", "tls.crt", "tls.key")))


def known_file(path: Path) -> Path:
    """The path of an identity's file.

    Raises:
        SettingsError: It is not there.
    """
    if not path.is_file():
        raise SettingsError(
            f"FEDRISK_IDENTITY: no file {path}. Make it with `fedrisk federation init` (SuperLink) "
            "or `fedrisk hospital add` (hospital), or mount it."
        )
    return path


def registered(settings: Settings, hospitals: list[str]) -> dict[str, Path]:
    """The registered public keys of the hospitals, those that have one, as they are now.

    Args:
        settings: ``registered`` names the folder.
        hospitals: Those of the run.

    Raises:
        SettingsError: No hospital of the run is registered.
    """
    folder = Path(settings.registered)
    keys = {name: folder / f"{name}.pub" for name in hospitals}
    found = {name: path for name, path in keys.items() if path.is_file()}
    if not settings.registered or not found:
        raise SettingsError(
            f"FEDRISK_REGISTERED={settings.registered}: no key of {', '.join(hospitals)} is there. "
            "Expected <hospital>.pub for each, as `fedrisk hospital add` leaves it."
        )
    for name in sorted(set(keys) - set(found)):
        print(f"{name}: no registered key in {folder}, so it cannot join", flush=True)
    return found
