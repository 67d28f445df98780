"""Whether the share of positives moved since the hospital's last good version of the same source.

The version before notes its outcome in its own commit, so nothing is read again. Versions of other
sources, or of a table dealt out otherwise, are not compared: their rates differ by design.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from tasks.data.fetch import public_name
from tasks.lake.tables import commits
from tasks.run.plan import Plan

NOTED = 3.0
"""Standard errors of the difference of two shares from which a drift is noted."""
REFUSED = 6.0
"""Standard errors from which a drift stops the hospital, if it is also at least ``LEAST``."""
LEAST = 0.1
"""Difference of shares below which a drift never stops a hospital."""


@dataclass(frozen=True)
class Outcome:
    """Rows and positives of one version of silver.

    Attributes:
        origin: What the rows were made from (``origin_of``).
        run: The run that wrote them.
        rows: Rows.
        positives: Those with the outcome.
    """

    origin: str
    run: str
    rows: int
    positives: int

    @property
    def rate(self) -> float:
        """Share of positives, 0 where there is no row."""
        return self.positives / self.rows if self.rows else 0.0

    def noted(self) -> dict[str, Any]:
        """As the commit's note."""
        return {"origin": self.origin, "rows": self.rows, "positives": self.positives}


def origin_of(plan: Plan) -> str:
    """Fingerprint of a source and of how it is dealt out; the source may carry a password."""
    study = plan.study
    parts = [
        public_name(plan.source_name),
        study.source.model_dump(mode="json"),
        {name: hospital.model_dump(mode="json") for name, hospital in study.hospitals.items()},
        study.target.model_dump(mode="json"),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def outcome_before(uri: str, plan: Plan, owner: str) -> Outcome | None:
    """The outcome of silver's newest version of the same origin by another run, if there is one."""
    origin = origin_of(plan)
    for commit in commits(uri, owner):
        about = commit.about
        if about.get("origin") == origin and about.get("run") != plan.run and about.get("rows"):
            return Outcome(origin, str(about["run"]), int(about["rows"]), int(about["positives"]))
    return None


def _standard_error(before: Outcome, rows: int) -> float:
    # Agresti and Coull's two added rows keep the error above 0 where a share is 0 or 1.
    share = (before.positives + 1) / (before.rows + 2)
    return math.sqrt(share * (1 - share) * (1 / before.rows + 1 / max(rows, 1)))


def bounds(before: Outcome, rows: int) -> tuple[float, float]:
    """Lowest and highest share of positives that a table of so many rows may have."""
    width = max(LEAST, REFUSED * _standard_error(before, rows))
    return max(0.0, before.rate - width), min(1.0, before.rate + width)


def remark(before: Outcome | None, now: Outcome) -> str | None:
    """A remark for the report where the share moved more than chance explains."""
    if before is None or not before.rows:
        return None
    moved = (now.rate - before.rate) / _standard_error(before, now.rows)
    if abs(moved) < NOTED:
        return None
    return (
        f"the share of positives moved from {before.rate:.1%} ({before.rows} rows, run "
        f"{before.run}) to {now.rate:.1%} ({now.rows} rows): {abs(moved):.1f} standard errors"
    )
