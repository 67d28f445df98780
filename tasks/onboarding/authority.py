"""The consortium's side: the certificate authority and the SuperLink's certificate.

``FOLDER/ca.crt``, ``tls.crt`` and ``tls.key`` are what the SuperLink is given (FEDRISK_IDENTITY).
``FOLDER/authority/ca.key`` signs renewals; it is never given to any process and is best kept off
line. Hospitals hold ``ca.crt`` alone, so a renewal changes nothing for them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import SettingsError
from tasks.files import write_atomically
from tasks.onboarding.folders import new_folder

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

AUTHORITY_LIFE = timedelta(days=3653)
SERVER_LIFE = timedelta(days=365)
AUTHORITY_KEY = "authority/ca.key"
FILES = ("ca.crt", "tls.crt", "tls.key", AUTHORITY_KEY)
_NAME = re.compile(
    r"(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)


def server_names(namespace: str, further: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the SuperLink's certificate (docs/deployment.md), and those given.

    Args:
        namespace: Of the pods.
        further: DNS names and IP addresses at which hospitals reach it.

    Raises:
        SettingsError: One is neither a DNS name nor an IP address.
    """
    for name in further:
        if not (_is_address(name) or (len(name) < 254 and _NAME.fullmatch(name))):
            raise SettingsError(
                f"--names {name}: neither a DNS name in small letters nor an IP address. A port "
                "does not belong to it."
            )
    own = ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    return tuple(
        dict.fromkeys(
            (
                *(f"fedrisk-superlink{end}" for end in own),
                f"*.fedrisk-run.{namespace}.svc.cluster.local",
                *("localhost", "127.0.0.1"),
                *further,
            )
        )
    )


def init(out: Path, names: tuple[str, ...]) -> bool:
    """Make the authority and the SuperLink's certificate, unless they are there.

    Args:
        out: The folder.
        names: All names of the certificate (``server_names``).

    Returns:
        Whether they were made; False where they were there with these names already.

    Raises:
        SettingsError: The folder holds something else, or a certificate with other names.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from tasks.federation.deployment import certificates

    if all((out / name).is_file() for name in FILES):
        held = set(certificates.names_of(read_certificate(out / "tls.crt")))
        if held == set(names):
            return False
        raise SettingsError(
            f"--out {out}: there is a federation with other names (missing: "
            f"{', '.join(sorted(set(names) - held)) or 'none'}; further: "
            f"{', '.join(sorted(held - set(names))) or 'none'}). To change the names under the "
            "same authority: fedrisk federation renew."
        )
    key, server = certificates.new_key(), certificates.new_key()
    authority = certificates.sign_authority(key, "fedrisk authority", AUTHORITY_LIFE)
    certificate = certificates.sign_server(authority, key, server, names, SERVER_LIFE)
    with new_folder(out) as folder:
        (folder / "authority").mkdir(mode=0o700)
        certificates.write_private(folder / AUTHORITY_KEY, certificates.private_pem(key))
        (folder / "ca.crt").write_bytes(authority.public_bytes(Encoding.PEM))
        (folder / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        certificates.write_private(folder / "tls.key", certificates.private_pem(server))
    return True


def renew(folder: Path, further: tuple[str, ...] = ()) -> datetime:
    """Sign the SuperLink's certificate anew under the same authority.

    The key stays, so that one file is replaced at one stroke; where ``tls.key`` was taken away, a
    new one is made.

    Args:
        folder: The federation's folder.
        further: Names to add to those that the certificate has.

    Returns:
        When the new certificate ends.

    Raises:
        SettingsError: The folder lacks the authority, or a file of it is not sound.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from tasks.federation.deployment import certificates

    authority = read_certificate(folder / "ca.crt")
    authority_key = _read_key(folder / AUTHORITY_KEY)
    if authority_key.public_key() != authority.public_key():
        raise SettingsError(f"{folder / AUTHORITY_KEY}: is not the key of {folder / 'ca.crt'}.")
    if authority.not_valid_after_utc < datetime.now(UTC) + timedelta(days=1):
        raise SettingsError(
            f"{folder / 'ca.crt'}: the authority ends {authority.not_valid_after_utc:%Y-%m-%d}. "
            "Make a new federation folder; every hospital needs its new ca.crt."
        )
    names = certificates.names_of(read_certificate(folder / "tls.crt"))
    if not (folder / "tls.key").exists():
        pem = certificates.private_pem(certificates.new_key())
        certificates.write_private(folder / "tls.key", pem)
    certificate = certificates.sign_server(
        authority, authority_key, _read_key(folder / "tls.key"), (*names, *further), SERVER_LIFE
    )
    write_atomically(folder / "tls.crt", certificate.public_bytes(Encoding.PEM))
    return certificate.not_valid_after_utc


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate.

    Raises:
        SettingsError: There is none.
    """
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError:
        raise SettingsError(f"{path}: is no certificate in PEM form.") from None


def authority_text(path: Path) -> str:
    """The certificate of an authority, in PEM form and with nothing else that its file may hold.

    Raises:
        SettingsError: There is none, or it is a certificate that another authority has signed.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate = read_certificate(path)
    if certificate.issuer != certificate.subject:
        raise SettingsError(
            f"{path}: is not the authority's certificate but one that "
            f"{certificate.issuer.rfc4514_string()} has signed. Give ca.crt, as `fedrisk "
            "federation init` makes it."
        )
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, TypeError):
        raise SettingsError(f"{path}: is no private key in PEM form without password.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(f"{path}: is no elliptic-curve key.")
    return key


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
