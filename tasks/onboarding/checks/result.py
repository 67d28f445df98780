"""The result of one check, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

STATE_TEXT = {"ok": "ok", "missing": "MISSING", "unknown": "not known"}


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name: What was checked.
        state: ``missing``: the hospital lacks something; ``unknown``: it could not be checked,
            which alone is not a failure.
        found: The finding.
        advice: What to do; empty where there is nothing to do.
    """

    name: str
    state: Literal["ok", "missing", "unknown"]
    found: str
    advice: str = ""

    def as_text(self) -> str:
        """One line, and a second one with the advice."""
        line = f"{STATE_TEXT[self.state]:<9} {self.name}: {self.found}"
        return f"{line}\n{'':<10}-> {self.advice}" if self.advice else line

    def as_json(self) -> dict[str, str]:
        """A JSON object; ``todo`` is the advice."""
        return {"name": self.name, "state": self.state, "found": self.found, "todo": self.advice}


def ok(name: str, found: str) -> CheckResult:
    """The check passed."""
    return CheckResult(name, "ok", found)


def missing(name: str, found: str, advice: str) -> CheckResult:
    """The check failed."""
    return CheckResult(name, "missing", found, advice)


def unknown(name: str, found: str, advice: str = "") -> CheckResult:
    """The check could not be made."""
    return CheckResult(name, "unknown", found, advice)
