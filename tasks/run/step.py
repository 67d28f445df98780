"""One step: the contract that all of them keep, under every launcher.

A step is idempotent (one with a manifest is not run again), reads only
what it is given, writes atomically, leaves a manifest last, and ends with an exit code that says
what the caller should do (``tasks.errors.ExitCode``).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import FedriskError, SettingsError
from tasks.run.folder import RunFolder
from tasks.run.manifest import Manifest, TableVersion
from tasks.run.plan import Plan, read_plan
from tasks.run.steps import STEPS, owner_of
from tasks.run.stored_run import open_run
from tasks.settings import Settings
from tasks.study import Study

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What a step is given."""

    plan: Plan
    run: RunFolder
    settings: Settings
    hospital: str | None

    @property
    def study(self) -> Study:
        """The run's frozen study."""
        return self.plan.study

    @property
    def own(self) -> str:
        """The hospital of a step that runs once a hospital."""
        if self.hospital is None:
            raise SettingsError("this step runs once a hospital: name it with --hospital.")
        return self.hospital


class Result(BaseModel):
    """What a step adds to its manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tables: dict[str, TableVersion] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    figures: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


def run_step(name: str, run: str, settings: Settings, hospital: str | None = None) -> Manifest:
    """Run one step, or return its manifest if it is done.

    Args:
        name: A key of ``STEPS``.
        run: The run's id; its plan must be there.
        settings: Where things live.
        hospital: The hospital, for a step that runs once a hospital.

    Raises:
        FedriskError: The step's own errors.
        SettingsError: There is no such step, or the hospital is missing, unknown or too much.
    """
    step = STEPS.get(name)
    if step is None:
        raise SettingsError(f"no step named {name!r}; the steps are plan, {', '.join(STEPS)}.")
    folder = open_run(settings, run, owner_of(name, hospital))
    plan = read_plan(folder)
    if step.each_hospital != (hospital is not None):
        need = "needs --hospital" if step.each_hospital else "takes no --hospital"
        raise SettingsError(f"step {name} {need}.")
    if hospital is not None and hospital not in plan.hospitals:
        raise SettingsError(
            f"hospital {hospital!r} does not take part in run {run}: {', '.join(plan.hospitals)}."
        )
    done = folder.find(name, hospital)
    if done is not None:
        log.info("step %s is done already; its manifest is kept", name)
        return done
    started, clock = datetime.now(UTC), time.monotonic()
    module, function = step.function.split(":")
    work: Callable[[Context], Result] = getattr(importlib.import_module(module), function)
    try:
        result = work(Context(plan=plan, run=folder, settings=settings, hospital=hospital))
    except BaseException:
        # A checkpoint, or the gates that were not met, for the next attempt.
        with contextlib.suppress(FedriskError):
            folder.upload_step(name, hospital)
        raise
    folder.upload_step(name, hospital)
    manifest = Manifest(
        step=name,
        study=plan.study.name,
        run=run,
        hospital=hospital,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 3),
        **{key: getattr(result, key) for key in Result.model_fields},
    )
    folder.write(manifest)
    return manifest
