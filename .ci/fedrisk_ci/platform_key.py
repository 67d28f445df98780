"""Whether a platform stage has passed for what it is about, as it stands now.

Its tests take long and are about a part of the files. Its key is a hash over these files, as git
has them committed, and the versions of the programs that they run on. A pass counts for
``MAX_AGE``, because what is not in the key (Debian's packages, the kernel) changes too.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedrisk_ci.records import write

MAX_AGE = 14 * 86400.0
"""Seconds that a pass counts."""
PATTERNS = Path(__file__).parent.parent / "platform.toml"


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern means a file: ``a/`` all below, ``a/test_*`` files directly in ``a``."""
    if pattern.endswith("/"):
        return path.startswith(pattern)
    folder, _, name = pattern.rpartition("/")
    its_folder, _, its_name = path.rpartition("/")
    return folder == its_folder and fnmatch.fnmatchcase(its_name, name)


def patterns() -> dict[str, list[str]]:
    """The lists of ``platform.toml`` by the stages that each is of, and ``not_about``."""
    return tomllib.loads(PATTERNS.read_text())


def patterns_of(stage: str) -> list[str]:
    """What a stage is about."""
    return [each for names, found in patterns().items() if stage in names.split() for each in found]


def output(*command: str, cwd: Path | None = None) -> str:
    """What a short command says, or nothing where it is not there or fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def toolchain(shared: Path) -> list[str]:
    """The versions of the programs that the stages run on.

    Args:
        shared: Where the scripts that install engine and cluster are; they name the versions.
    """
    found = [
        sys.version,
        output("docker", "version", "--format", "{{.Client.Version}} {{.Server.Version}}"),
        output("docker", "compose", "version", "--short"),
    ]
    for name in ("docker", "cluster"):
        for path in sorted(p for p in (shared / name).rglob("*") if p.is_file()):
            found.append(
                f"{path.relative_to(shared)} {hashlib.sha256(path.read_bytes()).hexdigest()}"
            )
    return found


def key(checkout: Path, about: Sequence[str], tools: Sequence[str]) -> str:
    """A stage's key, or nothing where a file that it is about is not committed as it is."""

    def is_about(path: str) -> bool:
        return any(matches(pattern, path) for pattern in about)

    changed = output("git", "status", "--porcelain", "--no-renames", "-z", "-uall", cwd=checkout)
    if any(is_about(entry[2:].strip()) for entry in changed.split("\0")):
        return ""
    tree = output("git", "ls-tree", "-r", "-z", "HEAD", cwd=checkout).split("\0")
    chosen = [entry for entry in tree if is_about(entry.partition("\t")[2])]
    if not chosen:
        return ""
    return hashlib.sha256("\0".join([*chosen, *tools]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Passes:
    """The keys that have passed, with revision and time of each.

    Attributes:
        path: A JSON file, outside the checkout.
    """

    path: Path

    def _read(self, now: float) -> dict[str, tuple[str, float]]:
        try:
            found = json.loads(self.path.read_text())
            # One from a future is from a clock that was wrong.
            return {k: (r, t) for k, (r, t) in found.items() if 0 <= now - t < MAX_AGE}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def found(self, key: str, now: float) -> str:
        """Where and when a key has passed, in words, or nothing."""
        known = self._read(now).get(key)
        if not key or known is None:
            return ""
        day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(known[1]))
        return f"passed with this key ({key}) at {known[0][:12]} on {day}"

    def add(self, key: str, revision: str, now: float) -> None:
        """Record a pass."""
        if key:
            write(self.path, json.dumps({**self._read(now), key: (revision, now)}, indent=1))
