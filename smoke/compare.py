"""The same run by two launchers: are the figures the same?"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoke.command import ROOT
from smoke.table import Table
from tasks.run.folder import RunFolder

TOLERANCE = 1e-6
"""Largest difference of two figures. Both launchers run the same code on the same rows; what is
left is the order in which other processors' libraries add, seen to be nothing on one machine."""
OWN = frozenset({"seconds", "created", "started", "run"})
"""Figures of one run alone, which differ between any two: its name, how long something took."""


@dataclass(frozen=True)
class EarlierRun:
    """A run of a study with the launcher ``process`` that has ended well before.

    Attributes:
        folder: Its folder.
        overrides: What the same run needs elsewhere.
    """

    folder: RunFolder
    overrides: list[str]

    def figures(self, limit: float) -> dict[str, Any]:  # noqa: ARG002
        """See ``ProcessRun.figures``."""
        return figures_of(self.folder)

    def end(self) -> None:
        """It has ended."""


class ProcessRun:
    """A run of a study with the launcher ``process``, beside what else goes on.

    Attributes:
        overrides: Of the study.
    """

    def __init__(self, home: Path, run: str, overrides: list[str]) -> None:
        """Start it.

        Args:
            home: FEDRISK_HOME, which is made.
            run: The run's id.
            overrides: Of the study.
        """
        home.mkdir(parents=True)
        self.overrides = overrides
        settings = [word for each in overrides for word in ("--set", each)]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FEDRISK_", "AWS_"))}
        self._folder, self._log = RunFolder(home / "runs", run), home / "run.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tasks.cli", "run", "--json", "--run", run, *settings],
                cwd=ROOT,
                env={**kept, "FEDRISK_HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def figures(self, limit: float) -> dict[str, Any]:
        """Wait for its end and return what its steps have found.

        Raises:
            RuntimeError: It failed; the message has its last words.
            subprocess.TimeoutExpired: It did not end in time.
        """
        code = self._process.wait(limit)
        if code:
            tail = self._log.read_text(encoding="utf-8", errors="replace")[-900:]
            raise RuntimeError(f"fedrisk run (process) ended with {code}: {tail}")
        return figures_of(self._folder)

    def end(self) -> None:
        """End it if it goes on, with all that it has started."""
        self._process.terminate()
        try:
            self._process.wait(300)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def figures_of(run: RunFolder) -> dict[str, Any]:
    """What the steps of a run have found, by step; its name and times left out."""
    found = {}
    for manifest in run.manifests():
        if manifest.step in ("deal", "collect", "validate", "features", "evaluate", "federated"):
            key = ".".join(filter(None, (manifest.step, manifest.hospital)))
            found[key] = json.loads(json.dumps(manifest.figures))
            if manifest.step == "collect":
                # Where the table was read: a path here, a bucket there.
                found[key].pop("source", None)
    return found


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Where two results differ, and by how much (infinite where they are no two numbers)."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other} - OWN):
            yield from differences(one.get(key), other.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{path}[{index}]")
    elif isinstance(one, float) and isinstance(other, float | int) and not isinstance(other, bool):
        if one != other:
            yield path, abs(one - other)
    elif one != other:
        yield path, math.inf


def numbers(found: Any) -> int:
    """How many numbers there are in a result."""
    if isinstance(found, dict):
        return sum(numbers(value) for key, value in found.items() if key not in OWN)
    if isinstance(found, list):
        return sum(numbers(value) for value in found)
    return int(isinstance(found, float | int) and not isinstance(found, bool))


def check_same(
    table: Table, by_process: dict[str, Any], run: RunFolder, *, champion: bool = True
) -> None:
    """Check that a run's figures are those of the launcher ``process``.

    Args:
        table: Gets the check.
        by_process: The figures to compare with.
        run: The run of another launcher.
        champion: Whether the two were compared with the same champion.
    """
    mine = figures_of(run)
    pair = (by_process, mine) if champion else map(_without_champion, (by_process, mine))
    found = list(differences(*pair))
    worst = max((size for _, size in found), default=0.0)
    table.check(
        "same-figures",
        f"figures equal those of the launcher process, within {TOLERANCE:g}",
        worst <= TOLERANCE and numbers(mine) > 1000,
        f"{numbers(mine)} numbers, {len(found)} differ, at most by {worst:g} "
        f"({', '.join(path for path, _ in found[:4])})",
    )


def _without_champion(figures: dict[str, Any]) -> dict[str, Any]:
    judged = figures["evaluate"]
    kept = {k: v for k, v in judged.items() if not k.startswith("champion") and k != "notes"}
    return {**figures, "evaluate": kept}
