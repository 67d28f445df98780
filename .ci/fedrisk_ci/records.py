"""What former runs took and what was flaky in them, kept outside the checkout."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrisk_ci.lanes import Result

KEPT = 50
"""Runs that are kept."""
RECENT = 10
"""Runs of a stage within which a check may be flaky once."""
MEASURED = "fast"
"""The stage whose CPU seconds tell how fast the machine is."""
SLOW = 1.5
RAN = ("passed", "FLAKY", "FAILED")


def cache() -> Path:
    """The folder of CI's records (XDG base directories)."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fedrisk" / "ci"


def write(path: Path, text: str) -> None:
    """Replace a file whole, so that one that is read is never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)


class Records:
    """The former runs, oldest first.

    Args:
        path: A file with one JSON object a run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.runs: list[dict[str, Any]] = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                self.runs.append(json.loads(line))
            except json.JSONDecodeError:
                # Times are worth less than the run that shows them.
                continue

    def add(
        self, results: Sequence[Result], folders: Mapping[str, float], revision: str, code: int
    ) -> None:
        """Keep this run with the former ones."""
        run = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "revision": revision,
            "code": code,
            "stages": {r.name: [r.state, round(r.wall, 1), round(r.cpu, 1)] for r in results},
            "folders": {name: round(seconds, 1) for name, seconds in folders.items()},
            "flaky": {r.name: r.flaky for r in results if r.flaky},
        }
        self.runs = [*self.runs, run][-KEPT:]
        write(self._path, "".join(f"{json.dumps(each)}\n" for each in self.runs))

    def last(self, stage: str) -> tuple[float, float] | None:
        """Wall and CPU seconds of the last run in which a stage came to a good end."""
        for run in reversed(self.runs):
            state, wall, cpu = run["stages"].get(stage, ("", 0, 0))
            if state in ("passed", "FLAKY"):
                return wall, cpu
        return None

    def slow(self, results: Mapping[str, Result]) -> str:
        """Why the machine is slow, or nothing: ``MEASURED`` took much more CPU time than it can.

        A machine that others use too is at times several times slower, by its memory. Then what
        polls (Airflow, Kubernetes, Flower) takes both cores by itself where several are up at once.
        """
        took = results[MEASURED].cpu if MEASURED in results else 0.0
        runs = (run["stages"].get(MEASURED, ("", 0, 0)) for run in reversed(self.runs))
        passed = [cpu for state, _, cpu in runs if state == "passed"]
        least = min(passed[:RECENT], default=took)
        if took <= SLOW * least:
            return ""
        return f"the machine is slow ({MEASURED} took {took:.0f} CPU-s, at best {least:.0f})"

    def flaky_again(self, results: Sequence[Result]) -> list[str]:
        """The checks that are flaky in this run and were in one of the last runs of their stage."""
        found = []
        for each in results:
            former = [r for r in self.runs if r["stages"].get(each.name, [""])[0] in RAN]
            recent = former[-(RECENT - 1) :]
            if each.flaky and any(r["flaky"].get(each.name) == each.flaky for r in recent):
                found.append(each.flaky)
        return found


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns: the first to the left, the others to the right, the last as it is."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        inner = [word.rjust(width) for word, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *inner, row[-1]]).rstrip())
    return "\n".join(lines)


def stage_table(results: Sequence[Result], records: Records) -> str:
    """Wall and CPU seconds of each stage beside its last ones, largest change of wall first."""
    rows = []
    for each in results:
        before = records.last(each.name) if each.wall else None
        wall, cpu = before or (0.0, 0.0)
        shown = (f"{wall:.0f}", f"{each.wall - wall:+.0f}", f"{cpu:.0f}", f"{each.cpu - cpu:+.0f}")
        last_wall, change, last_cpu, cpu_change = shown if before else ("-",) * 4
        row = (each.name, f"{each.wall:.0f}", last_wall, change, f"{each.cpu:.0f}")
        why = f"{each.state} {each.reason}".strip()
        rows.append((abs(each.wall - wall) if before else 0.0, (*row, last_cpu, cpu_change, why)))
    rows.sort(key=lambda row: -row[0])
    head = ("stage", "wall s", "last", "change", "CPU s", "last", "change", "state")
    return _table([head, *(row for _, row in rows)])


def folder_table(seconds: Mapping[str, float], budgets: Mapping[str, float]) -> str:
    """Seconds of each test folder beside its budget, the furthest over it first."""
    over = {name: spent - budgets.get(name, 0.0) for name, spent in seconds.items()}
    rows = [("folder", "s", "budget", "")]
    for name in sorted(over, key=lambda each: -over[each]):
        shown, said = "-", "no budget"
        if name in budgets:
            shown = f"{budgets[name]:.0f}"
            said = f"{'over' if over[name] > 0 else 'under'} by {abs(over[name]):.0f}"
        rows.append((name, f"{seconds[name]:.0f}", shown, said))
    return _table(rows)
