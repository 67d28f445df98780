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
from tasks.files import write_atomically
from tasks.run.folder import PLAN, RunFolder
from tasks.run.limits import (
    check_limits,
)
from tasks.run.sources import is_remote, resolve_source
from tasks.run.stored_run import open_run
from tasks.settings import Settings
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

    A second call with the same run returns the plan that is there, if it is of the same study.

    Args:
        request: What the user asked for.
        run: The run's id.
        settings: Where studies and runs are.

    Raises:
        StudyError: The study, an override or a choice is not sound, or the run is another study's.
        DataError: The source does not exist, or the study has none.
    """
    folder = open_run(settings, run)
    path = folder.fetch(PLAN)
    if path.exists():
        return _same_study(Plan.model_validate_json(path.read_bytes()), request, settings)
    file = find_study(request.study, settings.studies)
    overrides = request.all_overrides()
    study = read_study(file, overrides)
    chosen = _chosen_hospitals(study, request.hospitals)
    if study.federation.min_hospitals > len(chosen):
        raise StudyError(
            f"federation.min_hospitals is {study.federation.min_hospitals}, but the run has only "
            f"{len(chosen)} hospitals ({', '.join(chosen)})."
        )
    if settings.launcher == "kubernetes" and settings.federation == "run":
        check_executor(study)
    check_limits(study, file, overrides, settings)
    plan = Plan(
        run=run,
        study=study,
        study_file=str(file.absolute()),
        source=resolve_source(study, file, request.source, chosen, settings),
        hospitals=chosen,
        promote=request.promote,
        overrides=overrides,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    keep_plan(plan, settings)
    return plan


def keep_plan(plan: Plan, settings: Settings) -> None:
    """Keep a plan in its run's folder, where the steps read it.

    Args:
        plan: A new run's plan.
        settings: Where runs are.
    """
    folder = open_run(settings, plan.run)
    text = json.dumps(plan.model_dump(mode="json"), indent=2)
    write_atomically(folder.path / PLAN, text.encode() + b"\n")
    folder.upload(PLAN)


def read_plan(run: RunFolder) -> Plan:
    """Read the plan of a run.

    Raises:
        DataError: The run has no plan.
    """
    path = run.fetch(PLAN)
    if not path.exists():
        raise DataError(
            f"run {run.run}: no plan at {path}. Start with `fedrisk step plan --study S --run "
            f"{run.run}`."
        )
    return Plan.model_validate_json(path.read_bytes())


def check_executor(study: Study) -> None:
    """Refuse Flower's own SuperLink where other machines reach it.

    It serves the calls that register keys and start runs at the port that hospitals use, without
    authentication. The warm executor closes them; Flower's own command does not.

    Raises:
        StudyError: The study asks for it.
    """
    if study.federation.executor == "stock":
        raise StudyError(
            "federation.executor: stock: Flower's own SuperLink lets anyone who reaches its port "
            "register keys and start runs, so it is for a federation on one machine only. Set "
            "federation.executor: warm where hospitals come from other machines or pods."
        )


def _same_study(plan: Plan, request: Request, settings: Settings) -> Plan:
    """The plan that is there, unless it is another study's."""
    if request.study in (plan.study.name, plan.study_file):
        return plan
    try:
        name = read_study(find_study(request.study, settings.studies)).name
    except StudyError:
        # The file was moved or broken since; the plan does not need it.
        return plan
    if name != plan.study.name:
        raise StudyError(
            f"run {plan.run} is there and is of study {plan.study.name}, not of {name}: choose "
            "another id for the run."
        )
    return plan


def _chosen_hospitals(study: Study, names: Sequence[str]) -> list[str]:
    unknown = sorted(set(names) - set(study.hospitals))
    if unknown:
        raise StudyError(
            f"unknown hospitals {', '.join(unknown)}; study {study.name} has "
            f"{', '.join(study.hospitals)}."
        )
    return [name for name in study.hospitals if not names or name in names]


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
