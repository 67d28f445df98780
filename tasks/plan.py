"""A run's plan: what was asked for, frozen before the first step reads anything.

Every step of a run reads the study from the plan, so an edit of the study's file in the middle of
a run changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import DataError, StudyError
from tasks.manifest import RunFolder, write_atomically
from tasks.settings import Settings
from tasks.store import PLAN, open_run
from tasks.study import Study, find_study, read_study


class Request(BaseModel):
    """What a user asks of a run, in the trigger form or on the command line.

    Attributes:
        study: The study's name or file.
        source: A table, or a folder of the hospitals' own tables, in place of the study's.
        hospitals: The hospitals that take part; empty for all of the study.
        strategy: In place of ``federation.strategy``.
        rounds: In place of ``federation.rounds``.
        seed: In place of the study's seed.
        promote: Whether a winner that passes the gates becomes champion.
        overrides: ``path.to.key=value`` each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    source: str | None = None
    hospitals: list[str] = Field(default_factory=list)
    strategy: str | None = None
    rounds: int | None = None
    seed: int | None = None
    promote: bool = True
    overrides: list[str] = Field(default_factory=list)

    def all_overrides(self) -> list[str]:
        """The named choices and the overrides, as overrides; an explicit override wins."""
        named = {
            "federation.strategy": self.strategy,
            "federation.rounds": self.rounds,
            "seed": self.seed,
        }
        given = [f"{key}={value}" for key, value in named.items() if value is not None]
        return [*given, *self.overrides]


class Plan(BaseModel):
    """The frozen plan of one run.

    Attributes:
        run: The run's id.
        study: The study with all overrides.
        study_file: Where it was read.
        source: The one table's path or URL, or the folder of the hospitals' own tables; None for
            the study's own paths or its synthetic cohort.
        hospitals: The hospitals that take part, in the study's order.
        promote: Whether a winner that passes the gates becomes champion.
        overrides: What was changed for this run.
        created: UTC time, ISO 8601.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    study: Study
    study_file: str
    source: str | None
    hospitals: list[str]
    promote: bool
    overrides: list[str]
    created: str

    @property
    def synthetic(self) -> bool:
        """Whether the rows are a synthetic cohort's."""
        return self.source is None and self.study.source.synthetic is not None

    @property
    def source_name(self) -> str:
        """The source for people and for comparisons between runs."""
        if self.source is not None:
            return self.source
        return f"synthetic:{self.study.source.synthetic}" if self.synthetic else "study"


def make_plan(request: Request, run: str, settings: Settings) -> Plan:
    """Resolve and freeze what a run shall do, and keep it in the run's folder.

    A second call with the same run returns the plan that is there.

    Args:
        request: What the user asked for.
        run: The run's id.
        settings: Where studies and runs are.

    Raises:
        StudyError: The study, an override or a choice is not sound.
        DataError: The source does not exist, or the study has none.
    """
    folder = open_run(settings, run)
    path = folder.have(PLAN)
    if path.exists():
        return Plan.model_validate_json(path.read_bytes())
    file = find_study(request.study, settings.studies)
    overrides = request.all_overrides()
    study = read_study(file, overrides)
    chosen = _chosen_hospitals(study, request.hospitals)
    if study.federation.min_hospitals > len(chosen):
        raise StudyError(
            f"federation.min_hospitals is {study.federation.min_hospitals}, but the run has only "
            f"{len(chosen)} hospitals ({', '.join(chosen)})."
        )
    plan = Plan(
        run=run,
        study=study,
        study_file=str(file.absolute()),
        source=_resolved_source(study, file, request.source),
        hospitals=chosen,
        promote=request.promote,
        overrides=overrides,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    text = json.dumps(plan.model_dump(mode="json"), indent=2)
    write_atomically(path, text.encode() + b"\n")
    folder.put(PLAN)
    return plan


def read_plan(run: RunFolder) -> Plan:
    """Read the plan of a run.

    Raises:
        DataError: The run has no plan.
    """
    path = run.have(PLAN)
    if not path.exists():
        raise DataError(
            f"run {run.run}: no plan at {path}. Start with `fedrisk step plan --study S --run "
            f"{run.run}`."
        )
    return Plan.model_validate_json(path.read_bytes())


def is_remote(source: str) -> bool:
    """Whether a source is a URL rather than a path of this machine."""
    return "://" in source and not source.startswith("file://")


def _chosen_hospitals(study: Study, names: Sequence[str]) -> list[str]:
    unknown = sorted(set(names) - set(study.hospitals))
    if unknown:
        raise StudyError(
            f"unknown hospitals {', '.join(unknown)}; study {study.name} has "
            f"{', '.join(study.hospitals)}."
        )
    return [name for name in study.hospitals if not names or name in names]


def _resolved_source(study: Study, file: Path, given: str | None) -> str | None:
    source = given if given is not None else study.source.path
    if source is None:
        if study.source.kind != "own" and study.source.synthetic is None:
            raise DataError(
                f"study {study.name} has no source.path: give the table with --source PATH|URL."
            )
        return None if study.source.kind != "own" else str(file.absolute().parent)
    if is_remote(source):
        return source
    path = Path(source.removeprefix("file://"))
    if given is None and not path.is_absolute():
        path = file.absolute().parent / path
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Check --source (or source.path).")
    return str(path.absolute())


def hospital_source(plan: Plan, hospital: str) -> str:
    """Where one hospital's own table is (source kind ``own``).

    Args:
        plan: The run's plan.
        hospital: The hospital's name.

    Returns:
        A path or URL.
    """
    own: Any = plan.study.hospitals[hospital].path
    base = plan.source
    if is_remote(own) or base is None or Path(own).is_absolute():
        return str(own)
    if is_remote(base):
        return f"{base.rstrip('/')}/{own}"
    inside = Path(base) / own
    return str(inside if inside.exists() else Path(base) / Path(own).name)
