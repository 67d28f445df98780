"""A table of checks: what was looked at, what was seen, and whether all of it held."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

WIDEST = 100
"""Characters of what was seen that the table shows; the file has them all."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""What a program's log has for a terminal."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        stage: The part of the command that looked.
        id: Short name of the check in its stage, by which tests refer to it.
        what: What shall hold, in words.
        held: Whether it did.
        seen: What was seen: a figure, or why it did not hold.
    """

    stage: str
    id: str
    what: str
    held: bool
    seen: str = ""


@dataclass(frozen=True)
class Unseen:
    """One thing that could not be looked at here, which neither held nor did not.

    Attributes:
        stage: The part of the command that would have looked.
        id: Short name of the check in its stage.
        what: What it would have looked at, in words.
        why: Why it could not.
    """

    stage: str
    id: str
    what: str
    why: str


@dataclass
class Table:
    """Checks, in the order in which they were made, and the time of each stage."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    checks: list[Check] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    _stage: str = ""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a part of the command, and name its checks after it.

        What the part raises becomes a check that did not hold and is raised further, for what
        comes after would look at something that is not there.

        Args:
            name: The part's name.
        """
        before, self._stage, began = self._stage, name, time.monotonic()
        self._say(f"== {name}")
        try:
            yield
        except Exception as error:
            said = str(error).strip() or type(error).__name__
            self.check("goes-through", "goes through", False, said)
            raise
        finally:
            took = time.monotonic() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + took
            self._stage = before
            self._say(f"== {name}: {took:.0f} s")

    def check(self, name: str, what: str, held: bool, seen: object = "") -> bool:
        """Note one check; nothing is raised if it does not hold.

        Args:
            name: Its id in the stage.
            what: What shall hold, in words.
            held: Whether it does.
            seen: What was seen.

        Returns:
            Whether it holds.
        """
        words = COLOUR.sub("", str(seen)).split()
        made = Check(self._stage, name, what, bool(held), " ".join(words))
        self.checks.append(made)
        self._say(f"{'ok ' if held else 'NOT'} {what}" + (f": {made.seen}" if made.seen else ""))
        return made.held

    def leave(self, name: str, what: str, why: str) -> None:
        """Note what is not looked at.

        Args:
            name: Its id in the stage.
            what: What would have been looked at, in words.
            why: Why it is not.
        """
        self.unseen.append(Unseen(self._stage, name, what, why))
        self._say(f"--- not looked at: {what}: {why}")

    @property
    def held(self) -> bool:
        """Whether there are checks and all of them held."""
        return bool(self.checks) and all(each.held for each in self.checks)

    def end(self, file: Path | None = None) -> int:
        """Print the table.

        Args:
            file: Where to write it as JSON too.

        Returns:
            The command's exit code: 0 only if all checks held.
        """
        heads = ("stage", "check", "what", "held", "seen")
        rows = [
            (each.stage, each.id, each.what, "yes" if each.held else "NO", _short(each.seen))
            for each in self.checks
        ]
        rows += [
            (each.stage, each.id, each.what, "-", f"not looked at: {each.why}")
            for each in self.unseen
        ]
        widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(4)]
        self._say("")
        for row in [heads, *rows]:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self._say("  ".join([*cells, row[4]]).rstrip())
        times = ", ".join(f"{name} {took:.0f} s" for name, took in self.seconds.items())
        missed = sum(not each.held for each in self.checks)
        self._say(f"\n{times}" if times else "")
        made = len(self.checks)
        said = f"all {made} checks held" if self.held else f"{missed} of {made} did not hold"
        self._say(said + (f", {len(self.unseen)} not looked at" if self.unseen else ""))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            told: dict[str, object] = {"checks": [asdict(each) for each in self.checks]}
            told |= {"seconds": self.seconds, "unseen": [asdict(each) for each in self.unseen]}
            file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        return 0 if self.held else 1

    def _say(self, line: str) -> None:
        print(line, file=self.out, flush=True)


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."
