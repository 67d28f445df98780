"""A hospital's configuration for one run: which table it may use, and whether it approved."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.errors import DataError, NotApproved, NotJoined, SettingsError
from tasks.objects import get
from tasks.run.manifest import TableVersion
from tasks.run.stored_run import lake_store
from tasks.settings import Settings
from tasks.study import Study
from tasks.study.approval import read_approved

STANDING = "standing"
"""The node's configuration where there is no file for one run."""
OWN = "OWN_HOSPITAL"
"""Environment variable with the hospital that a SuperNode and its ClientApps work for."""
CONFIG, REFUSED = "hospital.json", "refused.json"
"""What a hospital's step ``join`` leaves: that the run may use a table, or why it may not."""


class HospitalConfig(BaseModel):
    """All that a hospital's process is configured with.

    Attributes:
        hospital: Its name.
        gold: URI of its own gold table.
        version: The table's version.
        study: The run's frozen study, the hospital's own copy: the server cannot change it.
        lake: URL of its own lake, where it remembers this run (``state.py``).
        state: The folder there, of this run, study and table version alone.
        approved: The hospital's file of approved studies; empty to approve all.
        ends: When the hospital no longer answers this run; None where the configuration itself
            ends with the run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hospital: str
    gold: str
    version: int
    study: Study
    lake: str
    state: str
    approved: str = ""
    ends: datetime | None = None


def hospital_config(
    settings: Settings, run: str, study: Study, name: str, table: TableVersion
) -> HospitalConfig:
    """The configuration of a hospital's process for a run.

    Args:
        settings: Where the hospital's lake is, and which studies it has approved.
        run: The run's id.
        study: The run's frozen study.
        name: The hospital.
        table: The version of its gold table that the run may use.
    """
    return HospitalConfig(
        hospital=name,
        gold=table.uri,
        version=table.version,
        study=study,
        lake=lake_store(settings, name),
        state=f"state/{run}/{study.digest()}-{table.version}",
        approved=settings.approved,
    )


def check_approved(config: HospitalConfig) -> None:
    """See that the hospital has approved the study, before its rows are read.

    Raises:
        NotApproved: It has not.
        SettingsError: Its file of approved studies cannot be read. The message does not say what
            is in it, for it leaves the hospital.
    """
    if not config.approved:
        return
    try:
        approved = read_approved(Path(config.approved))
    except SettingsError:
        raise SettingsError(
            f"hospital {config.hospital}: its approved-studies file cannot be read or is not "
            "sound, so nothing is approved. `fedrisk hospital check` says at the hospital where."
        ) from None
    refusal = approved.refusal(config.study)
    if refusal:
        raise NotApproved(f"hospital {config.hospital}: {refusal}")


def own_hospital() -> str:
    """The hospital that this process works for.

    Raises:
        DataError: It was not said.
    """
    name = os.environ.get(OWN, "")
    if not name:
        raise DataError("this SuperNode was not given its hospital (--hospital).")
    return name


def config_of(settings: Settings, run: str, hospital: str) -> HospitalConfig:
    """Read what the hospital has left for a run.

    Args:
        settings: Where the hospital's lake is, and which studies it has approved.
        run: The run's id.
        hospital: The hospital.

    Raises:
        NotJoined: It has left nothing: its step ``join`` has not run, or not ended.
        NotApproved: Its step ``join`` has refused the run.
        DataError: What it has left says not how long the run may use it.
    """
    base = f"runs/{run}/files/join.{hospital}"
    key = f"{base}/{CONFIG}"
    content = get(lake_store(settings, hospital), key)
    if content is None:
        refusal = get(lake_store(settings, hospital), f"{base}/{REFUSED}")
        if refusal is not None:
            raise NotApproved(str(json.loads(refusal)["reason"]))
        raise NotJoined(
            f"hospital {hospital} has not joined run {run}: its bucket holds no {key}. Run the "
            "step join of this hospital first."
        )
    config = HospitalConfig.model_validate_json(content)
    if config.ends is None:
        raise DataError(
            f"hospital {hospital} has joined run {run} without an end, as an earlier fedrisk "
            "did. Start a new run."
        )
    # What this SuperNode's own file says counts, not a path on the machine of the step.
    return config.model_copy(update={"approved": settings.approved})
