"""The keys of the stack's S3 store: an owner's each, and what the store is told of them."""

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


def tell_store(root: Path, own: list[Path]) -> None:
    """Everybody's key of the store, and what the store knows of them.

    Args:
        root: The folder of all volumes.
        own: The folders of the hospitals that are part of this start.
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
    told = seaweedfs_identities(keys, hospitals)
    told["identities"] += withdrawn(file, {each["name"] for each in told["identities"]})
    write(file, json.dumps(told, indent=1))
    write(settings / "buckets" / "buckets", "\n".join(buckets) + "\n", 0o444)


def withdrawn(file: Path, named: set[str]) -> list[dict[str, Any]]:
    """What the store is to be told of those that it knows and that are no more.

    A store that runs adds what its file says and forgets nothing: the key of one that is merely
    left out opens its bucket until the store's next start. So it gets another, which nobody has.

    Args:
        file: What the store has been told.
        named: Those that there are.
    """
    known = json.loads(file.read_text(encoding="utf-8"))["identities"] if file.exists() else []
    return [
        each if not each["actions"] else {**each, "credentials": [nobodys(each)], "actions": []}
        for each in known
        if each["name"] not in named
    ]


def nobodys(identity: dict[str, Any]) -> dict[str, str]:
    """The same access key with another secret."""
    access = identity["credentials"][0]["accessKey"]
    return {"accessKey": access, "secretKey": secrets.token_urlsafe(32)}


def s3_key(root: Path, owner: str) -> Key:
    """An owner's key, from the file that the launcher reads for each step."""
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
    """Close the store's gRPC port: it asks for a certificate of this one's, and there is none.

    Args:
        certificate: Where the certificate goes.

    Returns:
        Its key.
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
