"""How a step ended: exit code, message and log, kept beside the manifests of finished steps."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.files import write_atomically
from tasks.run.folder import RunFolder

ERROR = "error: "
"""What ``fedrisk`` puts before the message of a failed command on standard error."""


TRACEBACK = "Traceback (most recent call last):"


class Ending(BaseModel):
    """How a step's process ended.

    Attributes:
        step: The step's name.
        hospital: The hospital, for a step that runs once a hospital.
        code: Exit code as ``tasks.errors.ExitCode`` has it; a process ended by a signal or by its
            deadline counts as ``FAILED``.
        message: The error in words; empty if there is none.
        log: File with the process's output.
        seconds: Wall-clock time of the process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    hospital: str | None = None
    code: int
    message: str = ""
    log: str
    seconds: float


@dataclass(frozen=True)
class StepRecord:
    """Where one step of a run keeps its log and how it ended.

    Attributes:
        folder: The run's folder.
        step: The step's name.
        hospital: The hospital, for a step that runs once a hospital.
    """

    folder: RunFolder
    step: str
    hospital: str | None

    @property
    def key(self) -> str:
        """The step's name in file names, with the hospital's."""
        return ".".join(filter(None, (self.step, self.hospital)))

    @property
    def file(self) -> Path:
        """How it ended."""
        return self.folder.path / "ends" / f"{self.key}.json"

    @property
    def log(self) -> Path:
        """The end of its output."""
        return self.folder.path / "logs" / f"{self.key}.log"

    def write_log(self, lines: Sequence[str]) -> None:
        """Keep the step's output.

        Args:
            lines: Its lines.
        """
        write_atomically(self.log, "".join(f"{line}\n" for line in lines).encode())

    def write(self, code: int, why: str, seconds: float = 0.0) -> Ending:
        """Record how the step ended, in place of what an earlier try has recorded.

        Args:
            code: Exit code.
            why: The reason; empty if it is done.
            seconds: How long it took.
        """
        ending = Ending(
            step=self.step,
            hospital=self.hospital,
            code=int(code),
            message=why,
            log=str(self.log),
            seconds=seconds,
        )
        text = json.dumps(ending.model_dump(mode="json")).encode() + b"\n"
        write_atomically(self.file, text)
        return ending


def read_endings(run: RunFolder) -> list[Ending]:
    """Read how the steps of a run ended, the first to end first."""
    found = []
    for path in sorted((run.path / "ends").glob("*.json"), key=lambda each: each.stat().st_mtime):
        with contextlib.suppress(ValidationError, OSError):
            found.append(Ending.model_validate_json(path.read_bytes()))
    return found


def error_message(lines: Sequence[str]) -> str:
    """A failed step's error in words.

    Args:
        lines: The end of its output.

    Returns:
        What stands from the last ``error:`` line on; else the first line of the exception that a
        traceback ends with, without what some libraries add to it (a statement, a link);
        else the last line.
    """
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith(ERROR):
            return "\n".join(lines[index:]).removeprefix(ERROR).strip()
        if lines[index].startswith(TRACEBACK):
            rest = (each for each in lines[index + 1 :] if each.strip() and not each[0].isspace())
            return next(rest, "no message")
    return next((line for line in reversed(lines) if line.strip()), "no message")
