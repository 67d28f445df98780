"""The folder of a run, which holds its plan, manifests and files."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import ValidationError

from tasks.errors import DataError, SettingsError
from tasks.files import write_atomically
from tasks.run.manifest import Manifest

RUN_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+:-]{0,199}")


class RunFolder:
    """The folder of one run: ``<home>/runs/<run>/``."""

    def __init__(self, runs: Path, run: str) -> None:
        """Name the folder; nothing is made yet.

        Args:
            runs: The folder of all runs.
            run: The run's id.

        Raises:
            SettingsError: The id has characters that a folder's name should not have.
        """
        if not RUN_PATTERN.fullmatch(run) or ".." in run:
            raise SettingsError(
                f"run id {run!r}: use letters, digits, '_', '.', '+', ':' and '-' only, "
                "starting with a letter or digit."
            )
        self.run = run
        self.path = runs / run

    def _manifest(self, step: str, hospital: str | None) -> Path:
        name = step if hospital is None else f"{step}.{hospital}"
        return self.path / "manifests" / f"{name}.json"

    def folder(self, step: str, hospital: str | None = None) -> Path:
        """Make and return the folder for a step's files."""
        name = step if hospital is None else f"{step}.{hospital}"
        path = self.path / "files" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def relative(self, path: Path) -> str:
        """Name a file as manifests do: relative to the run's folder."""
        return str(path.relative_to(self.path))

    def fetch(self, relative: str, owner: str = "consortium") -> Path:
        """The path of a file of this run, which is fetched first where the run is shared.

        Args:
            relative: The file, relative to the run's folder; it may not exist.
            owner: Who has left it.
        """
        del owner
        return self.path / relative

    def refresh(self, relative: str, owner: str = "consortium") -> Path:
        """The path of a file that still grows, after fetching it again where the run is shared.

        Args:
            relative: The file, relative to the run's folder; it may not exist.
            owner: Who leaves it.
        """
        return self.fetch(relative, owner)

    def upload(self, relative: str) -> None:
        """Upload one file, where the run is shared.

        Args:
            relative: The file, relative to the run's folder.
        """

    def fetch_step(self, step: str, hospital: str | None = None) -> None:
        """Fetch the files of an earlier attempt of a step, where the run is shared.

        Args:
            step: The step's name.
            hospital: The hospital, for a step that runs once a hospital.
        """

    def upload_step(self, step: str, hospital: str | None = None) -> None:
        """Upload a step's files, where the run is shared.

        Args:
            step: The step's name.
            hospital: The hospital, for a step that runs once a hospital.
        """

    def skip_upload(self, step: str) -> None:
        """Do not upload a step's files: another process does.

        Args:
            step: The step's name.
        """

    def write(self, manifest: Manifest) -> Path:
        """Write a manifest atomically and return its path."""
        path = self._manifest(manifest.step, manifest.hospital)
        text = json.dumps(manifest.model_dump(mode="json"), indent=2)
        write_atomically(path, text.encode() + b"\n")
        return path

    def find(self, step: str, hospital: str | None = None) -> Manifest | None:
        """Read a manifest, or return None where the step is not done."""
        path = self._manifest(step, hospital)
        return self._load(path) if path.exists() else None

    def _load(self, path: Path) -> Manifest:
        """Read a manifest and check that it is the step's own.

        Otherwise the writer of one step's manifest could answer for another hospital, or have
        other files read than the step's.

        Raises:
            DataError: It is none, is another step's or run's, or names files of another.
        """
        where = f"run {self.run}: manifest {path.name}"
        try:
            found = Manifest.model_validate_json(path.read_bytes())
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise DataError(f"{where} is not sound: {place}: {fault['msg']}.") from None
        if path != self._manifest(found.step, found.hospital) or found.run != self.run:
            raise DataError(
                f"{where} is of step {found.step!r}, hospital {found.hospital!r}, run "
                f"{found.run!r}. Expected this step's own; delete it and run the step again."
            )
        for relative in found.files.values():
            parts = relative.split("/")
            if parts[:2] != ["files", path.stem] or len(parts) < 3 or {"", ".", ".."} & set(parts):
                raise DataError(
                    f"{where} names the file {relative!r}. Expected files below files/{path.stem}/."
                )
        return found

    def read(self, step: str, hospital: str | None = None) -> Manifest:
        """Read a manifest.

        Raises:
            DataError: The step has left none: it has not run, or it failed.
        """
        manifest = self.find(step, hospital)
        if manifest is None:
            of = f" of hospital {hospital}" if hospital else ""
            raise DataError(
                f"run {self.run}: step {step}{of} has left no manifest. Run it first "
                f"(fedrisk step {step} --run {self.run} ...), or look at its log."
            )
        return manifest

    def manifests(self) -> list[Manifest]:
        """Read all manifests of the run, oldest first."""
        found = [self._load(path) for path in sorted((self.path / "manifests").glob("*.json"))]
        return sorted(found, key=lambda manifest: manifest.started)


PLAN = "plan.json"
