"""The hospitals' public keys: as the folder FEDRISK_REGISTERED has them, and as Flower knows them.

A key that appears may join, one that goes may not, and neither needs a restart. What counts is the
key and not the file's bytes, and a folder that cannot be read changes nothing.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.federation.flower import control_cli as control

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
"""What a study may call a hospital: no other file of the folder is a hospital's key."""
GONE_FOR = 5.0
"""Seconds for which a key must be missing before its hospital is shut out: a file that is replaced
is missing for a moment."""
SLOWEST = 60.0
"""Longest pause, in seconds, before Flower is asked again to take a key that it has refused."""


@dataclass(frozen=True)
class _Node:
    key: str
    id: int


@dataclass
class _Refused:
    key: str
    next: float
    pause: float


class RegisteredKeys:
    """What the folder says, made true at the SuperLink."""

    def __init__(
        self, folder: Path, scratch: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Say where to look; nothing is registered yet.

        Args:
            folder: One ``<hospital>.pub`` each, in OpenSSH's form.
            scratch: Where the key goes that Flower is given.
            clock: Seconds.
        """
        self._folder, self._scratch, self._clock = folder, scratch, clock
        self._known: dict[str, _Node] = {}
        self._missing: dict[str, float] = {}
        self._refused: dict[str, _Refused] = {}
        self._reported: dict[str, str] = {}

    @property
    def nodes(self) -> dict[str, int]:
        """Flower's node id of each hospital that may join."""
        now = self._clock()
        return {
            name: node.id for name, node in self._known.items() if not self._has_left(name, now)
        }

    def look(self) -> None:
        """Register what is new, unregister what has gone; faults are logged once and retried."""
        found = self._read()
        if found is None:
            return
        now = self._clock()
        for name, node in list(self._known.items()):
            if name in found:
                self._missing.pop(name, None)
                if found[name] not in (None, node.key):
                    self._unregister(name)
            else:
                self._missing.setdefault(name, now)
                if self._has_left(name, now):
                    self._unregister(name)
        for name in set(self._refused) - set(found):
            del self._refused[name]
        for name, key in found.items():
            if key is not None and name not in self._known:
                self._register(name, key, now)

    def _has_left(self, name: str, now: float) -> bool:
        return name in self._missing and now - self._missing[name] >= GONE_FOR

    def _read(self) -> dict[str, str | None] | None:
        """The keys by hospital, None for one that cannot be read; None if the folder cannot be."""
        found: dict[str, str | None] = {}
        try:
            paths = sorted(self._folder.iterdir())
        except OSError as error:
            self._warn("", f"{self._folder} cannot be read ({error.strerror}): nothing is changed")
            return None
        self._reported.pop("", None)
        for path in paths:
            if path.suffix != ".pub" or path.name.startswith("."):
                continue
            if not NAME.fullmatch(path.stem):
                self._warn(path.stem, f"{path} is no hospital's key: {path.stem!r} is no name")
                continue
            try:
                found[path.stem] = _canonical(path.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                self._warn(path.stem, f"{path} cannot be read as a key ({why}): nothing is changed")
                found[path.stem] = None
        return found

    def _register(self, name: str, key: str, now: float) -> None:
        before = self._refused.get(name)
        if before is not None and before.key == key and now < before.next:
            return
        path = self._scratch / f"{name}.pub"
        try:
            # Flower reads a file; the registered one may be another by now.
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(key, encoding="ascii")
            self._known[name] = _Node(key, control.register(name, path))
        except Exception as error:  # noqa: BLE001  (Flower's client raises many kinds)
            again = before is not None and before.key == key
            pause = min(SLOWEST, 2 * before.pause) if before is not None and again else 1.0
            self._refused[name] = _Refused(key, now + pause, pause)
            self._warn(name, f"the key of {name} could not be registered: {error}")
            return
        self._refused.pop(name, None)
        self._reported.pop(name, None)
        print(f"registered {name}", flush=True)

    def _unregister(self, name: str) -> None:
        try:
            control.unregister(self._known[name].id)
        except Exception as error:  # noqa: BLE001
            # It stays known, so that the next look tries again.
            self._warn(name, f"{name} could not be unregistered: {error}")
            return
        del self._known[name]
        self._missing.pop(name, None)
        self._reported.pop(name, None)
        print(f"unregistered {name}", flush=True)

    def _warn(self, name: str, what: str) -> None:
        if self._reported.get(name) != what:
            self._reported[name] = what
            log.warning("%s", what)


def _canonical(content: bytes) -> str:
    """A public key in OpenSSH's form, without comment.

    Raises:
        ValueError: It is none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_ssh_public_key,
    )

    try:
        key = load_ssh_public_key(content.strip())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from None
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
