"""The same run by two launchers: are the figures the same?"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smoke.cluster_tools import checkout
from tasks.manifest import RunFolder

TOLERANCE = 1e-6
"""Largest difference of two figures. Both launchers run the same code on the same rows; what is
left is the order in which other processors' libraries add, seen to be nothing on one machine."""
TIMES = frozenset({"seconds", "created", "started"})
"""Figures that say how long something took, and so differ between any two runs."""


def process_run(home: Path, run: str, overrides: list[str], limit: float = 900) -> dict[str, Any]:
    """Run a study with the launcher ``process`` and return what its steps have found.

    Args:
        home: FEDRISK_HOME.
        run: The run's id.
        overrides: Of the study.
        limit: Seconds.
    """
    settings = [word for each in overrides for word in ("--set", each)]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FEDRISK_", "AWS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "tasks.cli", "run", "--json", "--run", run, *settings],
        cwd=checkout(),
        env={**kept, "FEDRISK_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"fedrisk run (process) ended with {done.returncode}: {done.stderr[-900:]}"
        )
    return figures_of(RunFolder(home / "runs", run))


def figures_of(run: RunFolder) -> dict[str, Any]:
    """What the steps of a run have found, by step; times left out."""
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
    """Where two results differ, and by how much (infinite where they are no two numbers).

    Args:
        one: The one.
        other: The other.
        path: Where they are.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other} - TIMES):
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
        return sum(numbers(value) for key, value in found.items() if key not in TIMES)
    if isinstance(found, list):
        return sum(numbers(value) for value in found)
    return int(isinstance(found, float | int) and not isinstance(found, bool))
