"""A hospital's file of approved studies, and whether it allows a study.

The consortium runs studies; a hospital decides which of them may use its rows. An approval names a
study and, where the hospital wants to decide again when they change, the digest of its terms. Only
the hospital's own processes read the file, so that no one else can extend it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tasks.errors import SettingsError
from tasks.study.base import Name, Part
from tasks.study.study import Study

NO_TERMS: dict[str, Any] = {
    "title": True,
    "description": True,
    "citation": True,
    "owner": True,
    "schedule": True,
    "seed": True,
    "source": True,
    "hospitals": True,
    "gates": True,
    "compute": True,
    "federation": {"deadlines": True, "executor": True},
}
"""Keys that are not terms: descriptions, schedule, other hospitals, operation.

A hospital agrees to all others: columns, target, pooling, split, model, training, the smallest
group that leaves it. A key that fedrisk adds later is a term unless it is added here.
"""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


def terms_digest(study: Study) -> str:
    """Fingerprint of the terms that a hospital agrees to: ``sha256:`` and 64 hex digits.

    It does not depend on other hospitals, titles, schedule or deadlines.

    Args:
        study: The study.
    """
    # Unsorted: the order of columns is the order of the model's inputs.
    text = json.dumps(study.model_dump(mode="json", exclude=NO_TERMS))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class ApprovedStudy(Part):
    """One approval."""

    name: Name
    digest: Digest | None = None
    """Approve these terms only (``terms_digest``); None approves any terms."""


class Approved(Part):
    """A hospital's approved-studies file."""

    studies: list[ApprovedStudy] = Field(default_factory=list)

    @model_validator(mode="after")
    def _once(self) -> Approved:
        names = [each.name for each in self.studies]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"studies names {', '.join(twice)} twice")
        return self

    def refusal(self, study: Study) -> str | None:
        """Why a study may not use this hospital's rows; None where it may.

        The text may leave the hospital, so it names no other study of the file.

        Args:
            study: The study with the run's overrides.
        """
        found = next((each for each in self.studies if each.name == study.name), None)
        if found is None:
            return (
                f"this hospital has not approved study {study.name}. To take part, add the study "
                "to the hospital's approved-studies file."
            )
        digest = terms_digest(study)
        if found.digest not in (None, digest):
            return (
                f"study {study.name} is not the one that this hospital approved: its terms now "
                f"have the digest {digest}. Review the changes, then write this digest into the "
                "hospital's approved-studies file."
            )
        return None


def read_approved(path: Path) -> Approved:
    """Read a hospital's approved-studies file.

    An empty list approves nothing; a missing or invalid file is an error, never an approval.

    Args:
        path: The YAML file: ``studies``, a list of ``name`` and, optionally, ``digest``.

    Raises:
        SettingsError: The file cannot be read or is not valid; the message has one line per fault.
    """
    where = f"approved studies {path}"
    try:
        tree = YAML(typ="safe").load(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise SettingsError(f"{where}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{where}: not UTF-8. Save the file as UTF-8.") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(f"{where}, line {line}: not YAML: {error.problem}.") from None
    except YAMLError as error:
        raise SettingsError(f"{where}: not YAML: {error}.") from None
    if not isinstance(tree, dict) or "studies" not in tree:
        raise SettingsError(
            f"{where}: expected the key studies with a list, such as\n"
            "studies:\n  - name: stroke\n(studies: [] approves none)."
        )
    try:
        return Approved.model_validate(tree)
    except ValidationError as error:
        faults = [
            f"{where}: {'.'.join(str(part) for part in fault['loc']) or 'studies'}: "
            f"{fault['msg'].removeprefix('Value error, ')}."
            for fault in error.errors()[:10]
        ]
        raise SettingsError("\n".join(faults)) from None
