"""The outcome of one check, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WORDS = {"ok": "ok", "missing": "MISSING", "unknown": "not known"}


@dataclass(frozen=True)
class Verdict:
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
        line = f"{WORDS[self.state]:<9} {self.name}: {self.found}"
        return f"{line}\n{'':<10}-> {self.todo}" if self.todo else line

    def as_json(self) -> dict[str, str]:
        """As plain JSON."""
        return {"name": self.name, "state": self.state, "found": self.found, "todo": self.todo}


def ok(name: str, found: str) -> Verdict:
    """Nothing lacks."""
    return Verdict(name, "ok", found)


def missing(name: str, found: str, todo: str) -> Verdict:
    """Something lacks."""
    return Verdict(name, "missing", found, todo)


def unknown(name: str, found: str, todo: str = "") -> Verdict:
    """It could not be looked at."""
    return Verdict(name, "unknown", found, todo)
