"""Whether a registered version may be set beside a run's model on the run's test rows.

It may where none of these rows can have trained it, and both answer one question of one kind of
patients. A patient's part follows from the split's key and from what identifies a patient, which
without an id is the row's content; so split, columns and source must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.run.plan import Plan


def source_kind(study: Mapping[str, Any], source: str) -> str:
    """``synthetic``, or the study's way to get at real rows.

    Args:
        study: A study as JSON holds it.
        source: ``Plan.source_name`` of the run.
    """
    return "synthetic" if source.startswith("synthetic:") else str(study["source"]["kind"])


def differences(theirs: Mapping[str, Any], kind: str, plan: Plan) -> list[str]:
    """What keeps a version made with another study or source from being compared.

    Args:
        theirs: The version's study, as JSON holds it.
        kind: Of the version's source.
        plan: The run's.

    Returns:
        For people, such as ``another split`` or ``other columns (bmi)``; empty where nothing does.
    """
    ours = plan.study.model_dump(mode="json")
    found = []
    if theirs["split"] != ours["split"]:
        found.append("another split")
    then, now = _columns(theirs), _columns(ours)
    other = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    if other:
        found.append(f"other columns ({', '.join(other)})")
    own = source_kind(ours, plan.source_name)
    if kind != own:
        found.append(f"another kind of source ({kind}, here {own})")
    return found


def _columns(study: Mapping[str, Any]) -> dict[str, Any]:
    """By column, how its values read: what decides on features, labels and patients' identity."""
    found: dict[str, Any] = {}
    for name, column in study["columns"].items():
        flagged = column["max_missing"] > 0 or bool(column["optional_at"])
        found[name] = [column["type"], column["categories"], column["missing"], flagged]
    target = study["target"]
    found[target["column"]] = [target["positive"], target["negative"]]
    if study["id"]:
        found[study["id"]] = "id"
    return found
