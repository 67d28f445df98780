"""Run the data steps over a study's tables in a folder that is then removed, and say what they say.

The steps are the run's own, so what is sound here is sound there. Nothing is written to a lake.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from tasks.data.validate import UNCHANGED
from tasks.errors import ExitCode, FedriskError, SettingsError, StudyError
from tasks.run.plan import Plan, Request, keep_plan, make_plan
from tasks.run.step import run_step
from tasks.settings import Settings
from tasks.study import Study

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
    with _scratch(settings) as own:
        plan = make_plan(request, _RUN, own)
        run_step("deal", _RUN, own)
        for hospital in plan.hospitals:
            yield _checked(hospital, own)


def check_own_table(study: Study, hospital: str, address: str, settings: Settings) -> TableCheck:
    """Check the table that one hospital has, where others' need not be within reach.

    Args:
        study: The study, of any kind of source.
        hospital: One of its hospitals.
        address: Path or URL of the hospital's own table.
        settings: The engine, and what Spark needs.

    Raises:
        StudyError: The study cannot have such an address.
        FedriskError: Something was unavailable.
    """
    alone = _with_own_tables(study, hospital, address)
    if not settings.engine and find_spec("pyspark") is None:
        # The image of a hospital has no Spark, the one of its data steps has: the rules are one.
        settings = settings.model_copy(update={"engine": "local"})
    with _scratch(settings) as own:
        plan = Plan(
            run=_RUN,
            study=alone,
            study_file="",
            source=None,
            hospitals=[hospital],
            promote=False,
            overrides=[],
            created="",
        )
        keep_plan(plan, own)
        return _checked(hospital, own)


def _with_own_tables(study: Study, hospital: str, address: str) -> Study:
    """The study with a table at each hospital, whatever kind of source it has.

    Raises:
        StudyError: It cannot have such an address.
    """
    tree = study.model_dump(mode="json")
    alone = {"kind": "own", "path": None, "site_column": None, "synthetic": None}
    if study.source.site_column is not None:
        # A hospital's extract may still have the column of the site, which is no error in a run.
        alone["extra"] = "ignore"
    tree["source"] |= {**alone, "other_sites": "refuse"}
    for name, each in tree["hospitals"].items():
        own = address if name == hospital else each["path"] or name
        each |= {"site": None, "share": None, "path": own}
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        # Pydantic's own text shows the input.
        faults = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
        raise StudyError(f"the table's address does not fit the study: {faults}") from None


@contextlib.contextmanager
def _scratch(settings: Settings) -> Iterator[Settings]:
    """Settings of a folder that is then removed."""
    with tempfile.TemporaryDirectory(prefix="fedrisk-check-") as folder:
        # Not Spark's master: a cluster's workers do not see this folder.
        kept = {"engine", "java_home", "engine_memory"}
        yield Settings(home=Path(folder), **settings.model_dump(include=kept))


def _checked(hospital: str, settings: Settings) -> TableCheck:
    try:
        done = {step: run_step(step, _RUN, settings, hospital).figures for step in STEPS}
    except FedriskError as error:
        # Settings, such as an engine that is not installed, are no fault of the table.
        if error.exit_code != ExitCode.BAD_INPUT or isinstance(error, SettingsError):
            raise
        return TableCheck(hospital, str(error).partition(UNCHANGED)[0])
    return TableCheck(
        hospital,
        rows=done["collect"]["rows"],
        kept=done["validate"]["rows"],
        positives=done["validate"]["positives"],
        ignored=done["collect"]["ignored"],
        reasons=done["validate"]["reasons"],
    )
