"""The keys of the stack's S3 store: one per owner, and the store's configuration."""

from __future__ import annotations

import datetime
import json
import secrets
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from volumes import put, write

from tasks.lake.identities import ADMIN, LAKE, RUNS, SHARED, Key, seaweedfs_identities
from tasks.run.steps import CONSORTIUM


def configure_store(root: Path, own: list[Path]) -> None:
    """Write every owner's key and the store's identities and buckets.

    Args:
        root: The folder of all volumes.
        own: The folders of the stack's own hospitals.
    """
    known = {path.stem for path in (root / "registered").glob("*.pub")}
    hospitals = sorted(known | {folder.name for folder in own})
    keys = {owner: s3_key(root, owner) for owner in [*hospitals, *SHARED]}
    admin = put(root / "s3" / "admin", lambda: secrets.token_urlsafe(32))
    keys[ADMIN] = Key("fedrisk-admin", admin)
    for folder in own:
        write(folder / "s3.env", (root / "credentials" / f"{folder.name}.env").read_text())
    write(root / "superlink" / "s3.env", (root / "credentials" / f"{CONSORTIUM}.env").read_text())
    buckets = [RUNS, *(LAKE.replace("{hospital}", name) for name in hospitals)]
    settings = root / "s3"
    put(settings / "closed" / "tls.key", lambda: closed(settings / "closed" / "tls.crt"))
    file = settings / "identities" / "s3.json"
    found = seaweedfs_identities(keys, hospitals)
    found["identities"] += revoked(file, {each["name"] for each in found["identities"]})
    write(file, json.dumps(found, indent=1))
    write(settings / "buckets" / "buckets", "\n".join(buckets) + "\n", 0o444)


def revoked(file: Path, current: set[str]) -> list[dict[str, Any]]:
    """Identities that remove the rights of former owners.

    A running store adds the identities of its file and deletes none: a key that is only left out
    is valid until the store's next start. So it is replaced by a random one without rights.

    Args:
        file: The store's present identities file.
        current: Names of the present owners.
    """
    known = json.loads(file.read_text(encoding="utf-8"))["identities"] if file.exists() else []
    return [
        each if not each["actions"] else {**each, "credentials": [new_secret(each)], "actions": []}
        for each in known
        if each["name"] not in current
    ]


def new_secret(identity: dict[str, Any]) -> dict[str, str]:
    """The identity's access key with a random secret."""
    access = identity["credentials"][0]["accessKey"]
    return {"accessKey": access, "secretKey": secrets.token_urlsafe(32)}


def s3_key(root: Path, owner: str) -> Key:
    """An owner's key from the file that the launcher reads for each step; created if missing."""
    text = put(
        root / "credentials" / f"{owner}.env",
        lambda: (
            f"AWS_ACCESS_KEY_ID=fedrisk-{owner}\nAWS_SECRET_ACCESS_KEY="
            f"{secrets.token_urlsafe(32)}\n"
        ),
    )
    found = dict(line.split("=", 1) for line in text.splitlines())
    return Key(found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"])


def closed(certificate: Path) -> str:
    """Make the authority that closes the store's gRPC port: no certificate of it exists.

    Args:
        certificate: The authority's certificate file.

    Returns:
        The authority's key.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedrisk s3 closed")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA384())
    )
    write(certificate, made.public_bytes(Encoding.PEM).decode("ascii"), 0o444)
    form = PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode("ascii")
