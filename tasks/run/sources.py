"""Where a run's tables are."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tasks.errors import DataError, StudyError
from tasks.settings import Settings
from tasks.study import Study

SHIPPED = Path("/opt/fedrisk/share")
"""What every image has: the studies with their data. A step's pod sees no other files."""


def is_remote(source: str) -> bool:
    """Whether a source is a URL rather than a path of this machine."""
    return "://" in source and not source.startswith("file://")


def resolve_source(
    study: Study, file: Path, given: str | None, hospitals: Sequence[str], settings: Settings
) -> str | None:
    """The table, or the folder of the hospitals' own tables, that a run reads.

    Args:
        study: The study with the run's overrides.
        file: The study's file; relative paths in it start at its folder.
        given: What the run names in place of the study's ``source.path``.
        hospitals: The run's.
        settings: Name the launcher: pods see no file of this machine.

    Returns:
        A path or URL; None for a synthetic cohort.

    Raises:
        StudyError: A pod could not read it.
        DataError: There is none, or it does not exist.
    """
    source, folder = study.source.path if given is None else given, file.absolute().parent
    pods = settings.launcher == "kubernetes"
    if source is None:
        if study.source.kind == "own":
            beside = [h for h in hospitals if not re.match("/|.+:/", str(study.hospitals[h].path))]
            if pods and beside:
                _check_shipped(folder, f"the tables of {', '.join(beside)}")
            return str(folder)
        if study.source.synthetic is None:
            raise DataError(
                f"study {study.name} has no source.path: give the table with --source PATH|URL."
            )
        return None
    if is_remote(source):
        return source
    path = Path(source.removeprefix("file://"))
    path = (folder / path if given is None else path).absolute()
    if pods:
        _check_shipped(path, "the source")
    # Where Airflow is outside the images, only the pod can look.
    if not path.exists() and (SHIPPED.exists() or not pods):
        raise DataError(f"{path}: no such file or folder. Check --source (or source.path).")
    return str(path)


def _check_shipped(path: Path, what: str) -> None:
    """Refuse a path of this machine where steps are pods, unless their images have it too."""
    if not Path(os.path.normpath(path)).is_relative_to(SHIPPED):
        raise StudyError(
            f"{path}: {what} would be read in a pod, which sees no file of this machine. Name it "
            f"at s3a:// or https://, or below {SHIPPED} in the images, by --source or in the study."
        )
