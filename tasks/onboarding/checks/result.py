"""The outcome of one check, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

STATE_TEXT = {"ok": "ok", "missing": "MISSING", "unknown": "not known"}


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: What was looked at.
        state: ``missing``: the hospital lacks something; ``unknown``: it could not be looked at,
            which alone is no fault.
        found: What was found, in plain words.
        todo: What to do; empty where nothing is to be done.
    """

    name: str
    state: Literal["ok", "missing", "unknown"]
    found: str
    todo: str = ""

    def as_text(self) -> str:
        """One line, and a second one with what to do."""
        line = f"{STATE_TEXT[self.state]:<9} {self.name}: {self.found}"
        return f"{line}\n{'':<10}-> {self.todo}" if self.todo else line

    def as_json(self) -> dict[str, str]:
        """As plain JSON."""
        return {"name": self.name, "state": self.state, "found": self.found, "todo": self.todo}


def ok(name: str, found: str) -> CheckResult:
    """Nothing lacks."""
    return CheckResult(name, "ok", found)


def missing(name: str, found: str, todo: str) -> CheckResult:
    """Something lacks."""
    return CheckResult(name, "missing", found, todo)


def unknown(name: str, found: str, todo: str = "") -> CheckResult:
    """It could not be looked at."""
    return CheckResult(name, "unknown", found, todo)
