"""Notice that the SuperLink's certificate was renewed: Flower reads its files once, when it starts.

cert-manager, or ``fedrisk federation renew``, puts new files in the place of the old. The SuperLink
then ends, its supervisor starts it again with them, and runs go on from their checkpoints.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from tasks.federation.deployment.certificates import Certificates

CERTIFICATE_POLL = 10.0
"""Seconds between two looks at the files."""


class CertificateWatch:
    """Looks at the SuperLink's files, by content."""

    def __init__(self, files: Certificates, clock: Callable[[], float] = time.monotonic) -> None:
        """Remember what the SuperLink starts with; make it before that is started.

        Args:
            files: The mounted files.
            clock: Seconds.
        """
        self._files, self._clock = files, clock
        self._first = self._digest()
        self._next = clock() + CERTIFICATE_POLL

    def look(self) -> bool:
        """Whether the SuperLink should be started again.

        A pair of which one half is still the old one, or half written, is none yet.
        """
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + CERTIFICATE_POLL
        found = self._digest()
        return found not in (None, self._first) and self._sound() and found == self._digest()

    def _digest(self) -> str | None:
        digest = hashlib.sha256()
        try:
            for path in (self._files.authority, self._files.certificate, self._files.key):
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError:
            return None
        return digest.hexdigest()

    def _sound(self) -> bool:
        """Whether certificate and key are whole and belong together."""
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            x509.load_pem_x509_certificates(self._files.authority.read_bytes())
            chain = x509.load_pem_x509_certificates(self._files.certificate.read_bytes())
            key = load_pem_private_key(self._files.key.read_bytes(), None)
            return key.public_key() == chain[0].public_key()
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
            return False
