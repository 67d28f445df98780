"""Make every key, password and certificate of the stack that is not there yet.

Runs once at each start, without a network, and leaves in each party's own volume (``/keys/...``)
what that party needs and nothing else. What exists stays as it is, so that a restart changes
nothing and a new hospital only adds its own: ``/keys/hospitals/<name>`` is a mount a hospital. If
such a folder brings a key pair (``node.pub``, and ``node.key`` or not), that one is registered.

``python keys.py NAME`` brings in a hospital that is no part of the stack: it makes the start-up kit
``/kits/NAME`` as ``fedrisk hospital add`` does, owned by ``KIT_USER``, and a key of the store.
``python keys.py --remove NAME`` takes both keys away again.
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

from store_keys import s3_key, tell_store
from volumes import USER, put, write

from tasks.errors import FedriskError, SettingsError
from tasks.federation.deployment.certificates import make_node_key
from tasks.lake.identities import LAKE
from tasks.launch.environment import read_credentials
from tasks.onboarding.authority import init, read_certificate, renew, server_names
from tasks.onboarding.keys import check_name, read_public_key, registered_keys
from tasks.onboarding.kit import add_hospital

ROOT, KITS = Path("/keys"), Path("/kits")
OTHERS = ("logs", "s3-data")
"""Volumes that are only given to the user."""
AHEAD = datetime.timedelta(days=60)
"""A certificate that ends sooner is renewed."""
REMOVE = "docker compose run --rm --no-deps keys python /opt/stack/keys.py --remove"
"""How whoever has read a refusal takes a hospital's keys away."""


def databases() -> None:
    """Passwords of Postgres, and what Airflow and MLflow read theirs from."""
    for name in ("password", "airflow", "mlflow"):
        # Only Postgres and what prepares it have this volume; it is another user, so all may read.
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
    """The password of Airflow's user; Airflow itself may write this file."""
    path = ROOT / "sign-in" / "password.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if user not in known:
        write(path, json.dumps(known | {user: secrets.token_urlsafe(12)}) + "\n", 0o600)
        print(f"made a password for {user}")


def superlink() -> None:
    """The federation's authority, which stays here, and the SuperLink's certificate."""
    folder = ROOT / "federation" / "authority-and-superlink"
    if init(folder, server_names("fedrisk", ())):
        print("made the federation's authority and the SuperLink's certificate")
    left = read_certificate(folder / "tls.crt").not_valid_after_utc
    if left - datetime.datetime.now(datetime.UTC) < AHEAD:
        print(f"renewed the SuperLink's certificate until {renew(folder):%Y-%m-%d}")
    for name, mode in (("ca.crt", 0o444), ("tls.crt", 0o444), ("tls.key", 0o400)):
        text = (folder / name).read_text(encoding="ascii")
        write(ROOT / "superlink" / name, text, mode)


def hospital(folder: Path) -> None:
    """A hospital's key pair, whose public half is registered, and the SuperLink's authority.

    Args:
        folder: The hospital's own.
    """
    name, public = folder.name, folder / "node.pub"
    if not public.exists():
        made = folder / "made"
        # Of a start that was cut off.
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
    """Where a hospital's public key is registered."""
    return ROOT / "registered" / f"{name}.pub"


def is_registered(folder: Path) -> bool:
    """Whether the key that is registered for a hospital is the one of its own folder."""
    public = folder / "node.pub"
    known = registered_keys(ROOT / "registered").get(folder.name)
    return public.exists() and read_public_key(public) == known


def check_own(folder: Path) -> None:
    """Refuse a hospital of the stack that would take the place of another of its name.

    Args:
        folder: The hospital's own.

    Raises:
        SettingsError: Another key is registered for its name.
    """
    name = folder.name
    if registration(name).exists() and not is_registered(folder):
        raise SettingsError(
            f"hospital {name}: another key is registered for it than its volume holds, perhaps a "
            "kit's. Give one of the two another name, or take the registered one away: "
            f"{REMOVE} {name}"
        )


def check_kit(name: str, own: list[Path]) -> None:
    """Refuse a kit for a hospital that is there.

    Args:
        name: The hospital's.
        own: The folders of the hospitals that are part of this start.

    Raises:
        SettingsError: It is part of the stack, or registered.
    """
    if name in {folder.name for folder in own}:
        raise SettingsError(f"hospital {name} is part of the stack, which makes its keys.")
    if registration(name).exists():
        raise SettingsError(
            f"hospital {name} is registered. To make it another kit, take its keys away first: "
            f"{REMOVE} {name}"
        )


def remove(name: str, own: list[Path]) -> None:
    """Take a hospital's keys away: SuperLink and store take notice within seconds.

    Its bucket stays, and so does what its steps have left there.

    Args:
        name: The hospital's.
        own: The folders of the hospitals that are part of this start.

    Raises:
        SettingsError: There is no key of it, or the next start would bring it in again.
    """
    credentials = ROOT / "credentials" / f"{name}.env"
    if not registration(name).exists() and not credentials.exists():
        known = ", ".join(sorted(path.stem for path in registration(name).parent.glob("*.pub")))
        raise SettingsError(f"hospital {name} is not registered (registered: {known or 'none'}).")
    for folder in own:
        if folder.name == name and is_registered(folder):
            raise SettingsError(
                f"hospital {name} is part of the stack, whose next start would bring it in again. "
                "Take it out of the compose files first."
            )
    for path in (registration(name), credentials):
        path.unlink(missing_ok=True)
    tell_store(ROOT, [folder for folder in own if folder.name != name])
    print(f"removed the keys of {name}")


def kit(name: str) -> None:
    """A hospital's start-up kit, and its registration.

    Args:
        name: The hospital's.
    """
    s3_key(ROOT, name)
    user, group = kit_user()
    with tempfile.TemporaryDirectory() as folder:
        # It is published below, once its readers may read it.
        registered = Path(folder) / "registered"
        shutil.copytree(ROOT / "registered", registered)
        add_hospital(
            name,
            superlink="fedrisk-superlink:9092",
            out=KITS / name,
            registered=registered,
            authority=ROOT / "superlink" / "ca.crt",
            lake="s3a://" + LAKE,
            image=f"fedrisk-federation:{os.environ.get('STACK_TAG') or 'dev'}",
            environment=os.environ,
            credentials=read_credentials(str(ROOT / "credentials" / "{owner}.env"), name),
        )
        for path in [KITS / name, *(KITS / name).iterdir()]:
            os.chown(path, user, group)
        public = (registered / f"{name}.pub").read_text(encoding="ascii")
    write(registration(name), public, 0o444)


def kit_user() -> tuple[int, int]:
    """Whose the kits are, from ``KIT_USER=uid:gid``: who unpacks one must be able to read it.

    Raises:
        SettingsError: It is nothing of the kind.
    """
    told = os.environ.get("KIT_USER") or f"{USER}:{USER}"
    found = re.fullmatch(r"(\d+):(\d+)", told)
    if found is None:
        raise SettingsError(f"KIT_USER={told}: expected two numbers, as $(id -u):$(id -g) gives.")
    return int(found.group(1)), int(found.group(2))


def main(add: list[str], gone: str = "") -> None:
    """Make what is missing, and give each volume to the user that its container runs as.

    Args:
        add: Names of hospitals that get a kit.
        gone: A hospital whose keys are taken away, and nothing else is done.
    """
    own = sorted(path for path in (ROOT / "hospitals").iterdir() if path.is_dir())
    # All that may be refused, before anything is written.
    for name in [*(path.name for path in own), *add, *([gone] if gone else [])]:
        check_name(name)
    kit_user()
    if gone:
        # Other hospitals are not looked at: several may be refused, and each is removed by itself.
        remove(gone, own)
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
    tell_store(ROOT, own)
    for volume in [*(path for path in ROOT.iterdir() if path.name != "hospitals"), *own]:
        os.chown(volume, USER, USER)
        # What others have written is theirs already, and may be much.
        for path in volume.rglob("*") if volume.name not in OTHERS else ():
            os.chown(path, USER, USER, follow_symlinks=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The stack's keys, passwords and certificates.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("add", nargs="*", default=[], metavar="NAME", help="make it a start-up kit")
    what.add_argument("--remove", default="", metavar="NAME", help="take its keys away")
    told = parser.parse_args()
    try:
        main(told.add, told.remove)
    except FedriskError as error:
        sys.exit(f"error: {error}")
