"""Keys and certificates: those of one run, and those of a federation that stands.

A certificate authority that signs the SuperLink's certificate, and a key pair a hospital, whose
public half is registered: no other key can join. A run's own are of no use after it, so its
authority's key is thrown away. A standing federation keeps it, so that the SuperLink's certificate
can be renewed while every hospital keeps the ``ca.crt`` that it has.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = timedelta(days=2)
"""Of the certificates of one run."""


@dataclass(frozen=True)
class Certificates:
    """Files of the SuperLink.

    Attributes:
        authority: Certificate that clients verify it with.
        certificate: The SuperLink's own.
        key: Its private key, readable by its owner only.
    """

    authority: Path
    certificate: Path
    key: Path


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def make_certificates(folder: Path, names: tuple[str, ...] = ("localhost",)) -> Certificates:
    """Make an authority and the SuperLink's certificate; the authority's key is thrown away.

    Args:
        folder: Where the files go.
        names: DNS names and IP addresses of the SuperLink beside 127.0.0.1.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority_key, key = new_key(), new_key()
    authority = sign_authority(authority_key, "fedrisk run authority", LIFE)
    # Clients look at the alternative names only, so the address must stand among them.
    certificate = sign_server(authority, authority_key, key, (*names, "127.0.0.1"), LIFE)
    found = Certificates(folder / "ca.crt", folder / "server.pem", folder / "server.key")
    found.authority.write_bytes(authority.public_bytes(Encoding.PEM))
    found.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    write_private(found.key, private_pem(key))
    return found


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key on the curve that Flower wants of its nodes (P-384)."""
    return ec.generate_private_key(ec.SECP384R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A server's private key as PEM, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def sign_authority(key: ec.EllipticCurvePrivateKey, name: str, life: timedelta) -> x509.Certificate:
    """A certificate authority's certificate, signed by itself; it may sign servers' only.

    Args:
        key: The authority's.
        name: Its common name.
        life: How long it is valid.
    """
    return (
        _certificate(_name(name), _name(name), key.public_key(), datetime.now(UTC) + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )


def sign_server(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    life: timedelta,
) -> x509.Certificate:
    """The SuperLink's certificate.

    Args:
        authority: The authority's certificate.
        authority_key: The authority's key.
        key: The SuperLink's.
        names: DNS names (``*.name`` too) and IP addresses at which it is reached.
        life: How long it is valid, and never longer than the authority.
    """
    end = min(datetime.now(UTC) + life, authority.not_valid_after_utc)
    return (
        _certificate(_name("fedrisk superlink"), authority.subject, key.public_key(), end)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(name) for name in dict.fromkeys(names)]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and IP addresses that a certificate is good for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *found.get_values_for_type(x509.DNSName),
        *(str(address) for address in found.get_values_for_type(x509.IPAddress)),
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def make_node_key(folder: Path) -> tuple[Path, Path]:
    """Make a hospital's key pair.

    Args:
        folder: The hospital's own folder.

    Returns:
        Private key and public key, in OpenSSH's form.
    """
    key = new_key()
    private, public = folder / "node.key", folder / "node.pub"
    write_private(private, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return private, public


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, end: datetime
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(end)
    )
