"""The consortium's side: the certificate authority and the SuperLink's certificate.

``FOLDER/ca.crt``, ``tls.crt`` and ``tls.key`` are for the SuperLink (FEDRISK_IDENTITY).
``FOLDER/authority/ca.key`` signs renewals; no process gets it, and it is best kept offline.
Hospitals have ``ca.crt`` only, so a renewal does not affect them.
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
    """The names of the SuperLink's certificate (docs/deployment.md), with further ones.

    Args:
        namespace: Namespace of the pods.
        further: DNS names and IP addresses at which hospitals reach the SuperLink.

    Raises:
        SettingsError: A name is neither a DNS name nor an IP address.
    """
    for name in further:
        if not (_is_address(name) or (len(name) < 254 and _NAME.fullmatch(name))):
            raise SettingsError(
                f"--names {name}: neither a DNS name in lower case nor an IP address. Leave out "
                "the port."
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
    """Create the authority and the SuperLink's certificate, unless they exist.

    Args:
        out: The folder.
        names: All names of the certificate (``server_names``).

    Returns:
        Whether they were created; False where they exist with these names.

    Raises:
        SettingsError: The folder contains other files, or a certificate with other names.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from tasks.federation.deployment import certificates

    if all((out / name).is_file() for name in FILES):
        held = set(certificates.names_of(read_certificate(out / "tls.crt")))
        if held == set(names):
            return False
        raise SettingsError(
            f"--out {out}: contains a federation with other names (missing: "
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
    """Renew the SuperLink's certificate under the same authority.

    The key stays, so that one file is replaced atomically; a missing ``tls.key`` is created.

    Args:
        folder: The federation's folder.
        further: Names to add to those of the certificate.

    Returns:
        The new certificate's expiry.

    Raises:
        SettingsError: The folder lacks the authority, or one of its files is not valid.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from tasks.federation.deployment import certificates

    authority = read_certificate(folder / "ca.crt")
    authority_key = _read_key(folder / AUTHORITY_KEY)
    if authority_key.public_key() != authority.public_key():
        raise SettingsError(f"{folder / AUTHORITY_KEY}: not the key of {folder / 'ca.crt'}.")
    if authority.not_valid_after_utc < datetime.now(UTC) + timedelta(days=1):
        raise SettingsError(
            f"{folder / 'ca.crt'}: the authority expires {authority.not_valid_after_utc:%Y-%m-%d}. "
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
        raise SettingsError(f"{path}: not a certificate in PEM form.") from None


def authority_text(path: Path) -> str:
    """The certificate of an authority in PEM form, without other contents of its file.

    Raises:
        SettingsError: There is none, or another authority has signed it.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate = read_certificate(path)
    if certificate.issuer != certificate.subject:
        raise SettingsError(
            f"{path}: not the authority's certificate but one signed by "
            f"{certificate.issuer.rfc4514_string()}. Give the ca.crt of `fedrisk federation init`."
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
        raise SettingsError(f"{path}: not a private key in PEM form without password.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(f"{path}: not an elliptic-curve key.")
    return key


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
