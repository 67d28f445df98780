"""What a step leaves behind: one small JSON file, and the folder of a run that holds them.

A manifest is written last and atomically, so its presence means that the step is done. It carries
counts, versions and figures, never a row's values.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tasks import __version__


class TableVersion(BaseModel):
    """One version of a Delta table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    version: int = Field(ge=0)
    rows: int = Field(ge=0)


class Manifest(BaseModel):
    """The result of one step.

    Attributes:
        step: The step's name.
        study: The study's name.
        run: The run's id.
        hospital: The hospital, for a step that runs once a hospital.
        started: UTC time, ISO 8601.
        seconds: Wall-clock time of the step's own work.
        tables: Delta tables read or written, by layer.
        files: Files written, by purpose, relative to the run's folder.
        figures: The step's results as plain JSON; each step documents a pydantic model for it.
        notes: Remarks for the report, in plain words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    study: str
    run: str
    hospital: str | None = None
    started: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seconds: float = 0.0
    fedrisk: str = __version__
    tables: dict[str, TableVersion] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    figures: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
