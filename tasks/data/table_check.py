"""Run the data steps over a study's tables in a folder that is then removed, and say what they say.

The steps are the run's own, so what is sound here is sound there. Nothing is written to a lake.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.data.validate import UNCHANGED
from tasks.errors import ExitCode, FedriskError
from tasks.run.plan import Request, make_plan
from tasks.run.step import run_step
from tasks.settings import Settings

STEPS = ("collect", "validate", "features")
_RUN = "check"


@dataclass(frozen=True)
class TableCheck:
    """What the data steps say of one hospital's table; counts and no value.

    Attributes:
        hospital: The hospital.
        error: Why its run would end; empty where the table is sound.
        rows: Rows of the table.
        kept: Rows that keep all rules.
        positives: Those of them with the outcome.
        ignored: Columns that the study does not name.
        reasons: Rows in quarantine by rule.
    """

    hospital: str
    error: str = ""
    rows: int = 0
    kept: int = 0
    positives: int = 0
    ignored: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line for a person."""
        if self.error:
            return self.error
        broken = ", ".join(f"{name} {count}" for name, count in self.reasons.items())
        return (
            f"hospital {self.hospital}: sound: {self.kept} of {self.rows} rows are kept, "
            f"{self.positives} of them positive"
            + (f"; broken rules: {broken}" if broken else "")
            + (f"; columns that the study does not name: {self.ignored}" if self.ignored else "")
        )


def check_tables(request: Request, settings: Settings) -> Iterator[TableCheck]:
    """Check every hospital's table of a run.

    Args:
        request: The study's file, and what a run of it would be asked for.
        settings: The engine, and what Spark needs.

    Raises:
        FedriskError: The study is not sound, the one table that is dealt out is not, or something
            was unavailable.
    """
    with tempfile.TemporaryDirectory(prefix="fedrisk-check-") as folder:
        # Not Spark's master: a cluster's workers do not see this folder.
        kept = {"engine", "java_home", "engine_memory"}
        own = Settings(home=Path(folder), **settings.model_dump(include=kept))
        plan = make_plan(request, _RUN, own)
        run_step("deal", _RUN, own)
        for hospital in plan.hospitals:
            try:
                done = {step: run_step(step, _RUN, own, hospital).figures for step in STEPS}
            except FedriskError as error:
                if error.exit_code != ExitCode.BAD_INPUT:
                    raise
                yield TableCheck(hospital, str(error).partition(UNCHANGED)[0])
                continue
            yield TableCheck(
                hospital,
                rows=done["collect"]["rows"],
                kept=done["validate"]["rows"],
                positives=done["validate"]["positives"],
                ignored=done["collect"]["ignored"],
                reasons=done["validate"]["reasons"],
            )
