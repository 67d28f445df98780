"""What a step's pod leaves in the run's folder when it has ended, as the launcher ``process`` does.

Its log and its ending, beside the manifests of the steps that are done; whoever follows the run
reads them (``tasks.launch.read_endings``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.launch import Ending
from tasks.manifest import RunFolder, write_atomically


@dataclass(frozen=True)
class Told:
    """Where one step of a run tells how it ended.

    Attributes:
        folder: The run's folder.
        step: The step's name.
        hospital: The hospital, for a step that runs once a hospital.
    """

    folder: RunFolder
    step: str
    hospital: str | None

    @property
    def _key(self) -> str:
        return ".".join(filter(None, (self.step, self.hospital)))

    @property
    def file(self) -> Path:
        """How it ended."""
        return self.folder.path / "ends" / f"{self._key}.json"

    @property
    def log(self) -> Path:
        """The end of its output."""
        return self.folder.path / "logs" / f"{self._key}.log"

    def leave_log(self, lines: Sequence[str]) -> None:
        """Keep the step's output.

        Args:
            lines: Its lines.
        """
        write_atomically(self.log, "".join(f"{line}\n" for line in lines).encode())

    def leave(self, code: int, why: str, seconds: float = 0.0) -> Ending:
        """Say how the step ended, in place of what an earlier try has said.

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
