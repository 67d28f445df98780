"""Hospitals' names and keys, and the folder of registered keys (FEDRISK_REGISTERED).

The standing SuperLink reads the folder every second: a key that is added may join, one that is
removed may not, and nothing is restarted.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import SettingsError
from tasks.files import write_atomically
from tasks.study.base import RESERVED_NAMES, YAML_WORDS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

NAME = re.compile(r"[a-z]([a-z0-9-]{0,33}[a-z0-9])?")
CURVES = {"secp256r1": "nistp256", "secp384r1": "nistp384", "secp521r1": "nistp521"}
"""The curves that Flower accepts for nodes and OpenSSH supports."""


def check_name(name: str) -> None:
    """Check that a name is a DNS label of at most 35 characters and not reserved.

    Raises:
        SettingsError: It is not valid.
    """
    if not NAME.fullmatch(name) or name in RESERVED_NAMES | YAML_WORDS:
        raise SettingsError(
            f"hospital {name!r}: expected lower-case letters, digits and '-', a letter first and "
            "no '-' last, 35 characters at most (it names pods and a bucket), and none of "
            f"{', '.join(sorted(RESERVED_NAMES))}; nor a word that YAML reads as a truth value."
        )


def read_public_key(path: Path) -> str:
    """Read a hospital's public key.

    Args:
        path: The key in OpenSSH's format (``node.pub``) or PEM.

    Returns:
        The key in OpenSSH's format, without comment and line break.

    Raises:
        SettingsError: There is none, it is private, or its curve is not one that Flower accepts.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}).") from None
    return parse_public_key(content, str(path))


def parse_public_key(content: bytes, where: str) -> str:
    """Parse a public key; see ``read_public_key``.

    Args:
        content: The key.
        where: Prefix of error messages.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if b"PRIVATE KEY" in content:
        raise SettingsError(
            f"{where}: is a private key, which must not leave the hospital. Send node.pub; make a "
            "new pair if this file has already been sent."
        )
    lines = [line for line in content.strip().splitlines() if line.strip()]
    pem = content.lstrip().startswith(b"-----BEGIN")
    if not pem and len(lines) != 1:
        raise SettingsError(f"{where}: expected one public key, found {len(lines)} lines.")
    try:
        key = (
            serialization.load_pem_public_key(content)
            if pem
            else serialization.load_ssh_public_key(lines[0])
        )
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(
            f"{where}: not a public key. Expected one line `ecdsa-sha2-nistp384 AAAA...`, as "
            "`ssh-keygen -t ecdsa -b 384 -f node.key -N ''` writes it to node.key.pub."
        ) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise SettingsError(
            f"{where}: unsupported key type. Flower accepts ECDSA keys on NIST's curves: make one "
            "with `ssh-keygen -t ecdsa -b 384 -f node.key -N ''`."
        )
    return public_text(key)


def public_text(key: ec.EllipticCurvePublicKey) -> str:
    """A public key in OpenSSH's format."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a hospital's own key, as the SuperNode does.

    Raises:
        SettingsError: There is no key that a SuperNode can use.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingsError(
            f"{path}: not a private key in OpenSSH's format without password. Make one with "
            "`ssh-keygen -t ecdsa -b 384 -f node.key -N ''` and send the consortium the .pub."
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise SettingsError(f"{path}: not an ECDSA key on one of NIST's curves.")
    return key


def fingerprint(public: str) -> str:
    """A public key's fingerprint, as ``ssh-keygen -l`` prints it.

    Args:
        public: The key in OpenSSH's format.
    """
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def registered_keys(folder: Path) -> dict[str, str]:
    """The registered hospitals' keys by name; files without a valid key are skipped.

    Args:
        folder: FEDRISK_REGISTERED.
    """
    found = {}
    for path in sorted(folder.glob("*.pub")):
        try:
            found[path.stem] = read_public_key(path)
        except SettingsError:
            continue
    return found


def check_new(folder: Path, name: str, public: str | None) -> None:
    """Refuse a hospital that is registered, and another hospital's key.

    Args:
        folder: FEDRISK_REGISTERED.
        name: The hospital's.
        public: Its key; None where one is yet to be made.

    Raises:
        SettingsError: It is.
    """
    check_name(name)
    if (folder / f"{name}.pub").exists():
        raise SettingsError(
            f"hospital {name} is registered in {folder}. To give it another key: fedrisk hospital "
            f"remove {name}, then add it again."
        )
    for other, key in registered_keys(folder).items():
        if key == public:
            raise SettingsError(
                f"the key of hospital {name} is registered for hospital {other}. Every hospital "
                "needs a key of its own."
            )


def register(folder: Path, name: str, public: str) -> Path:
    """Register a hospital's key.

    Args:
        folder: FEDRISK_REGISTERED; created if absent.
        name: The hospital's name.
        public: Its key in OpenSSH's format.

    Raises:
        SettingsError: The name or key is registered, or the folder cannot be written.
    """
    check_new(folder, name, public)
    path = folder / f"{name}.pub"
    try:
        write_atomically(path, f"{public} {name}\n".encode())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written ({error.strerror}).") from None
    return path


def unregister(folder: Path, name: str) -> None:
    """Remove a hospital's key.

    Args:
        folder: FEDRISK_REGISTERED.
        name: The hospital's name.

    Raises:
        SettingsError: It is not registered.
    """
    check_name(name)
    path = folder / f"{name}.pub"
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in folder.glob("*.pub"))) or "none"
        raise SettingsError(f"hospital {name} is not registered in {folder} (there: {known}).")
    path.unlink()
