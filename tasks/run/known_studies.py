"""Which study files become DAGs: those of the checkout, and those that a user has run.

A study file elsewhere is not copied, for its data paths are relative to where it stands; one small
file ``<home>/studies/<name>.path`` names it instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasks.errors import StudyError
from tasks.files import write_atomically
from tasks.settings import Settings
from tasks.study import Study, find_study, read_study


def study_files(settings: Settings) -> list[Path]:
    """List all study files, those of the checkout first.

    Args:
        settings: Where studies and home are.
    """
    own = settings.home / "studies"
    return [
        *sorted(settings.studies.glob("*.yaml")),
        *sorted(own.glob("*.yaml")),
        *(_target(pointer) for pointer in sorted(own.glob("*.path"))),
    ]


def sound_studies(settings: Settings, only: str | None = None) -> Iterator[tuple[Path, Study]]:
    """Read all studies that can be read.

    Args:
        settings: Where studies and home are.
        only: Name of the one study that is wanted.
    """
    seen: set[str] = set()
    for file in study_files(settings):
        try:
            study = read_study(file)
        except StudyError:
            continue
        if study.name not in seen and only in (None, study.name):
            seen.add(study.name)
            yield file, study


def study_faults(settings: Settings) -> list[str]:
    """Why study files make no DAG, one text a file."""
    faults, seen = list[str](), dict[str, Path]()
    for file in study_files(settings):
        try:
            study = read_study(file)
        except StudyError as error:
            faults.append(str(error))
            continue
        first = seen.setdefault(study.name, file)
        if first != file:
            faults.append(f"{file}: the name {study.name} is taken by {first}; choose another.")
    return faults


def find_known_study(name_or_file: str, settings: Settings) -> Path:
    """Find a study by path, by name in the checkout, or by the name of one run before.

    Raises:
        StudyError: There is no such study.
    """
    pointer = settings.home / "studies" / f"{name_or_file}.path"
    if "/" not in name_or_file and pointer.is_file():
        return _target(pointer)
    return find_study(name_or_file, settings.studies).absolute()


def register_study(file: Path, name: str, settings: Settings) -> None:
    """Let a study file become a DAG, if it is none already.

    Args:
        file: The study's file, which has been read without a fault.
        name: The study's name.
        settings: Where studies and home are.

    Raises:
        StudyError: Another study file has this name.
    """
    pointer = settings.home / "studies" / f"{name}.path"
    for known in study_files(settings):
        if known.absolute() == file.absolute():
            return
    for known, study in sound_studies(settings, only=name):
        if pointer.is_file() and _target(pointer) == known:
            break
        raise StudyError(
            f"{file}: the study's name {study.name} is taken by {known}, and its models and tables "
            "would mix with this one's. Give the study another name."
        )
    write_atomically(pointer, f"{file.absolute()}\n".encode())


def _target(pointer: Path) -> Path:
    return Path(pointer.read_text(encoding="utf-8").strip())
