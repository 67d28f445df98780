"""Create all keys, passwords and certificates of the stack that are missing.

Runs once at each start, without a network, and writes into each party's own volume (``/keys/...``)
only what that party needs. Existing files stay, so that a restart changes nothing and a new
hospital only adds its own: ``/keys/hospitals/<name>`` is one mount per hospital. A key pair in such
a folder (``node.pub``, with or without ``node.key``) is registered.

``python keys.py NAME`` adds a hospital that is not part of the stack: it makes the start-up kit
``/kits/NAME`` like ``fedrisk hospital add``, owned by ``KIT_USER``, and a key of the store.
``python keys.py --remove NAME`` removes both keys again.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from store_keys import configure_store, s3_key
from volumes import USER, put, write

from tasks.errors import FedriskError, SettingsError
from tasks.federation.deployment.certificates import make_node_key
from tasks.lake.identities import LAKE
from tasks.launch.environment import read_credentials
from tasks.onboarding.authority import init, read_certificate, renew, server_names
from tasks.onboarding.keys import check_name, read_public_key, registered_keys
from tasks.onboarding.kit import add_hospital

ROOT, KITS = Path("/keys"), Path("/kits")
DATA_VOLUMES = ("logs", "s3-data")
"""Volumes whose owner is set, but not that of their files."""
RENEW_WITHIN = datetime.timedelta(days=60)
"""A certificate that expires within this time is renewed."""
REMOVE = "docker compose run --rm --no-deps keys python /opt/stack/keys.py --remove"
"""The command that removes a hospital's keys, for error messages."""


def databases() -> None:
    """Write the passwords of Postgres, and the files that give Airflow and MLflow theirs."""
    for name in ("password", "airflow", "mlflow"):
        # Only Postgres, which has another user id, and its set-up mount this volume.
        put(ROOT / "postgres" / name, lambda: secrets.token_urlsafe(24), 0o444)
    of_airflow, of_mlflow = ((ROOT / "postgres" / n).read_text() for n in ("airflow", "mlflow"))
    put(
        ROOT / "mlflow" / "uri", lambda: f"postgresql+psycopg2://mlflow:{of_mlflow}@postgres/mlflow"
    )
    put(
        ROOT / "airflow" / "airflow.cfg",
        lambda: "\n".join(
            [
                "[database]",
                f"sql_alchemy_conn = postgresql+psycopg2://airflow:{of_airflow}@postgres/airflow",
                "[core]",
                f"fernet_key = {base64.urlsafe_b64encode(os.urandom(32)).decode()}",
                "[api]",
                f"secret_key = {secrets.token_urlsafe(32)}",
                "[api_auth]",
                f"jwt_secret = {secrets.token_urlsafe(48)}",
                "",
            ]
        ),
    )


def sign_in(user: str) -> None:
    """Write the password of Airflow's user; Airflow itself may write this file."""
    path = ROOT / "sign-in" / "password.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if user not in known:
        write(path, json.dumps(known | {user: secrets.token_urlsafe(12)}) + "\n", 0o600)
        print(f"made a password for {user}")


def superlink() -> None:
    """Create the federation's authority, which stays here, and the SuperLink's certificate."""
    folder = ROOT / "federation" / "authority-and-superlink"
    if init(folder, server_names("fedrisk", ())):
        print("made the federation's authority and the SuperLink's certificate")
    left = read_certificate(folder / "tls.crt").not_valid_after_utc
    if left - datetime.datetime.now(datetime.UTC) < RENEW_WITHIN:
        print(f"renewed the SuperLink's certificate until {renew(folder):%Y-%m-%d}")
    for name, mode in (("ca.crt", 0o444), ("tls.crt", 0o444), ("tls.key", 0o400)):
        text = (folder / name).read_text(encoding="ascii")
        write(ROOT / "superlink" / name, text, mode)


def hospital(folder: Path) -> None:
    """Create a hospital's key pair, register it, and copy the SuperLink's authority.

    Args:
        folder: The hospital's folder.
    """
    name, public = folder.name, folder / "node.pub"
    if not public.exists():
        made = folder / "made"
        # Left by an interrupted start.
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        key, public_made = make_node_key(made)
        write(folder / "node.key", key.read_text(encoding="ascii"))
        write(public, public_made.read_text(encoding="ascii"), 0o444)
        shutil.rmtree(made)
        print(f"made the key of {name}")
    write(registration(name), public.read_text(encoding="ascii"), 0o444)
    authority = (ROOT / "superlink" / "ca.crt").read_text(encoding="ascii")
    write(folder / "ca.crt", authority, 0o444)


def registration(name: str) -> Path:
    """The file of a hospital's registered key."""
    return ROOT / "registered" / f"{name}.pub"


def is_registered(folder: Path) -> bool:
    """Whether a hospital's registered key is the one in its folder."""
    public = folder / "node.pub"
    known = registered_keys(ROOT / "registered").get(folder.name)
    return public.exists() and read_public_key(public) == known


def check_own(folder: Path) -> None:
    """Refuse a hospital of the stack that would replace another of the same name.

    Args:
        folder: The hospital's folder.

    Raises:
        SettingsError: Another key is registered for its name.
    """
    name = folder.name
    if registration(name).exists() and not is_registered(folder):
        raise SettingsError(
            f"hospital {name}: the registered key is not the one in its volume; it may be a kit's. "
            f"Rename one of the two, or remove the registered key: {REMOVE} {name}"
        )


def check_kit(name: str, own: list[Path]) -> None:
    """Refuse a kit for a hospital that exists.

    Args:
        name: The hospital's name.
        own: The folders of the stack's own hospitals.

    Raises:
        SettingsError: It is part of the stack, or registered.
    """
    if name in {folder.name for folder in own}:
        raise SettingsError(f"hospital {name} is part of the stack, which makes its keys.")
    if registration(name).exists():
        raise SettingsError(
            f"hospital {name} is registered. To make another kit, first remove its keys: "
            f"{REMOVE} {name}"
        )


def remove(name: str, own: list[Path]) -> None:
    """Remove a hospital's keys; SuperLink and store react within seconds.

    Its bucket stays with its contents.

    Args:
        name: The hospital's name.
        own: The folders of the stack's own hospitals.

    Raises:
        SettingsError: It has no key, or the next start would add it again.
    """
    credentials = ROOT / "credentials" / f"{name}.env"
    if not registration(name).exists() and not credentials.exists():
        known = ", ".join(sorted(path.stem for path in registration(name).parent.glob("*.pub")))
        raise SettingsError(f"hospital {name} is not registered (registered: {known or 'none'}).")
    for folder in own:
        if folder.name == name and is_registered(folder):
            raise SettingsError(
                f"hospital {name} is part of the stack, whose next start would add it again. "
                "Remove it from the compose files first."
            )
    for path in (registration(name), credentials):
        path.unlink(missing_ok=True)
    configure_store(ROOT, [folder for folder in own if folder.name != name])
    print(f"removed the keys of {name}")


def kit(name: str) -> None:
    """Make a hospital's start-up kit and register its key.

    Args:
        name: The hospital's name.
    """
    s3_key(ROOT, name)
    user, group = kit_user()
    with tempfile.TemporaryDirectory() as folder:
        # A copy: the key is registered below with the permissions of its readers.
        registered = Path(folder) / "registered"
        shutil.copytree(ROOT / "registered", registered)
        add_hospital(
            name,
            superlink="fedrisk-superlink:9092",
            out=KITS / name,
            registered=registered,
            authority=ROOT / "superlink" / "ca.crt",
            lake="s3a://" + LAKE,
            image=f"fedrisk-hospital:{os.environ.get('STACK_TAG') or 'dev'}",
            environment=os.environ,
            credentials=read_credentials(str(ROOT / "credentials" / "{owner}.env"), name),
        )
        for path in [KITS / name, *(KITS / name).iterdir()]:
            os.chown(path, user, group)
        public = (registered / f"{name}.pub").read_text(encoding="ascii")
    write(registration(name), public, 0o444)


def kit_user() -> tuple[int, int]:
    """User and group that own the kits, from ``KIT_USER=uid:gid``.

    Raises:
        SettingsError: The variable is not valid.
    """
    value = os.environ.get("KIT_USER") or f"{USER}:{USER}"
    found = re.fullmatch(r"(\d+):(\d+)", value)
    if found is None:
        raise SettingsError(f"KIT_USER={value}: expected two numbers, as $(id -u):$(id -g) gives.")
    return int(found.group(1)), int(found.group(2))


def main(add: list[str], former: str = "") -> None:
    """Create what is missing, and set the owner of each volume to its container's user.

    Args:
        add: Names of hospitals to make a kit for.
        former: A hospital to remove; nothing else is done then.
    """
    own = sorted(path for path in (ROOT / "hospitals").iterdir() if path.is_dir())
    # All checks come before the first write.
    for name in [*(path.name for path in own), *add, *([former] if former else [])]:
        check_name(name)
    kit_user()
    if former:
        # Other hospitals are not checked: where several are refused, each is removed in turn.
        remove(former, own)
        return
    for folder in own:
        check_own(folder)
    for name in add:
        check_kit(name, own)
    databases()
    sign_in(os.environ["ADMIN"])
    superlink()
    for folder in own:
        hospital(folder)
    for name in add:
        kit(name)
    configure_store(ROOT, own)
    for volume in [*(path for path in ROOT.iterdir() if path.name != "hospitals"), *own]:
        os.chown(volume, USER, USER)
        # Files of data volumes were written by that user, and may be many.
        for path in volume.rglob("*") if volume.name not in DATA_VOLUMES else ():
            os.chown(path, USER, USER, follow_symlinks=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The stack's keys, passwords and certificates.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("add", nargs="*", default=[], metavar="NAME", help="make a start-up kit")
    what.add_argument("--remove", default="", metavar="NAME", help="remove a hospital's keys")
    args = parser.parse_args()
    try:
        main(args.add, args.remove)
    except FedriskError as error:
        sys.exit(f"error: {error}")
