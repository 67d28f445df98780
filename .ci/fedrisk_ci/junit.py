"""What pytest's reports say: the tests that ran, the seconds of each folder, what failed."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One test of a report.

    Attributes:
        name: Module and test, as ``tests.data.test_deal::test_it[a]``.
        folder: Its folder, as ``tests/data``; folders below it count with it.
        seconds: Its duration, with the fixtures that it was the first to need.
        state: ``passed``, ``failed`` or ``skipped``.
    """

    name: str
    folder: str
    seconds: float
    state: str


def cases(report: Path) -> list[Case]:
    """The tests of a report in their order; none where pytest did not come to write one."""
    if not report.exists():
        return []
    found = []
    for each in ElementTree.parse(report).getroot().iter("testcase"):
        module = each.get("classname", "").split(".")
        depth = next((i for i, part in enumerate(module) if part.startswith("test_")), len(module))
        kinds = {child.tag for child in each}
        state = "failed" if kinds & {"failure", "error"} else "passed"
        found.append(
            Case(
                name=f"{'.'.join(module)}::{each.get('name')}",
                folder="/".join(module[: min(depth, 2)]) or "tests",
                seconds=float(each.get("time", 0)),
                state="skipped" if "skipped" in kinds and state == "passed" else state,
            )
        )
    return found


def first_failed(report: Path) -> str:
    """The first test that failed, in their order, or nothing."""
    return next((case.name for case in cases(report) if case.state == "failed"), "")


def folder_seconds(reports: Iterable[Path]) -> dict[str, float]:
    """Seconds of each test folder, over all reports."""
    found: dict[str, float] = defaultdict(float)
    for report in reports:
        for case in cases(report):
            found[case.folder] += case.seconds
    return dict(found)


def closing_line(reports: Iterable[Path]) -> str:
    """How many tests passed, failed and were skipped; a test tried twice counts as it ended."""
    ended = {case.name: case.state for report in reports for case in cases(report)}
    count = Counter(ended.values())
    return f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped"
