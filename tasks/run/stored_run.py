"""A run's folder that several machines share: an S3 bucket, of which the folder is a working copy.

A pod has a folder of its own that ends with it. What a step reads is fetched when it asks for the
manifest that names it; what it leaves is put into the store, the manifest last, so that a manifest
in the store means that the step is done. Each owner writes below a prefix of its own; files that
hold rows, or describe them, go to the hospital's own bucket (``docs/deployment.md``).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tasks.files import write_atomically
from tasks.objects import get, keys, put
from tasks.run.folder import PLAN, RunFolder
from tasks.run.manifest import Manifest
from tasks.run.steps import CONSORTIUM, POOL, STEPS, owner_of
from tasks.settings import Settings

MANIFEST = re.compile(r"manifests/(?P<step>[a-z]+)(\.(?P<hospital>[a-z][a-z0-9-]*))?\.json")
"""Where a step's manifest is."""


def open_run(settings: Settings, run: str, owner: str = CONSORTIUM) -> RunFolder:
    """The folder of a run, shared through the store if there is one.

    Args:
        settings: Where runs and the store are.
        run: The run's id.
        owner: Who opens it, and so what it may fetch and where it writes.

    Raises:
        SettingsError: The id is not fit for a folder's name.
    """
    if not settings.store:
        return RunFolder(settings.runs, run)
    return StoredRun(settings, run, owner)


class StoredRun(RunFolder):
    """The working copy of a run that is kept in the store."""

    def __init__(self, settings: Settings, run: str, owner: str) -> None:
        """Name the folder; nothing is fetched yet.

        Args:
            settings: Where runs, the store and the hospitals' lakes are.
            run: The run's id.
            owner: Who opens it.
        """
        super().__init__(settings.runs, run)
        self.owner, self._settings = owner, settings
        self._fetched: set[str] = set()
        self._not_uploaded: set[str] = set()

    def fetch(self, relative: str, owner: str = CONSORTIUM) -> Path:
        """See ``RunFolder.fetch``."""
        path = self.path / relative
        if not path.exists():
            content = get(self._settings.store, f"{owner}/{self.run}/{relative}")
            if content is not None:
                write_atomically(path, content)
        return path

    def refresh(self, relative: str, owner: str = CONSORTIUM) -> Path:
        """See ``RunFolder.refresh``."""
        content = get(self._settings.store, f"{owner}/{self.run}/{relative}")
        if content is not None:
            write_atomically(self.path / relative, content)
        return self.path / relative

    def upload(self, relative: str) -> None:
        """See ``RunFolder.upload``."""
        content = (self.path / relative).read_bytes()
        put(self._settings.store, f"{self.owner}/{self.run}/{relative}", content)

    def write(self, manifest: Manifest) -> Path:
        """Write a manifest, here and then in the store."""
        path = super().write(manifest)
        self.upload(self.relative(path))
        return path

    def find(self, step: str, hospital: str | None = None) -> Manifest | None:
        """Read a manifest, and fetch the files that it names and this owner may read."""
        owner = owner_of(step, hospital)
        name = self.relative(self._manifest(step, hospital))
        self.fetch(name, owner)
        manifest = super().find(step, hospital)
        if manifest is not None and name not in self._fetched:
            self._fetch_files(manifest, owner)
            self._fetched.add(name)
        return manifest

    def _fetch_files(self, manifest: Manifest, owner: str) -> None:
        for purpose, relative in manifest.files.items():
            own = manifest.hospital if STEPS[manifest.step].local_model else purpose
            if not self._is_private(manifest.step):
                self.fetch(relative, owner)
            elif own == self.owner and not (self.path / relative).exists():
                lake = lake_store(self._settings, self.owner)
                content = get(lake, f"runs/{self.run}/{relative}")
                if content is not None:
                    write_atomically(self.path / relative, content)

    def fetch_step(self, step: str, hospital: str | None = None) -> None:
        """See ``RunFolder.fetch_step``."""
        prefix = f"{owner_of(step, hospital)}/{self.run}/"
        folder = self.relative(self.folder(step, hospital))
        for key in keys(self._settings.store, f"{prefix}{folder}"):
            # By its name and not by the key's own path: the store's listing is not trusted.
            relative = key.removeprefix(prefix)
            if relative.startswith(f"{folder}/") and ".." not in relative.split("/"):
                self.fetch(relative, owner_of(step, hospital))

    def skip_upload(self, step: str) -> None:
        """See ``RunFolder.skip_upload``."""
        self._not_uploaded.add(step)

    def upload_step(self, step: str, hospital: str | None = None) -> None:
        """See ``RunFolder.upload_step``."""
        if step in self._not_uploaded:
            return
        folder = self.folder(step, hospital)
        for path in sorted(folder.rglob("*")):
            relative = self.relative(path)
            # Keys and sockets of a federation, and files that are half written.
            if not path.is_file() or "/private/" in relative or path.name.startswith("."):
                continue
            if not self._is_private(step):
                self.upload(relative)
                continue
            of = hospital or path.stem
            if of in self._hospitals():
                lake = lake_store(self._settings, of)
                put(lake, f"runs/{self.run}/{relative}", path.read_bytes())

    def _is_private(self, name: str) -> bool:
        """Whether a step's files go to the hospital's own bucket and nowhere else."""
        step = STEPS[name]
        if not step.local_model:
            return step.private
        return not self._planned().get("study", {}).get("evaluation", {}).get("cross_site", True)

    def _hospitals(self) -> list[str]:
        """The run's hospitals, as its plan has them."""
        found: list[str] = self._planned().get("hospitals", [])
        return found

    def _planned(self) -> dict[str, Any]:
        """The run's plan, unchecked; empty where there is none yet."""
        plan = self.fetch(PLAN)
        found: dict[str, Any] = json.loads(plan.read_bytes()) if plan.exists() else {}
        return found

    def manifests(self) -> list[Manifest]:
        """Read all manifests of the run, after fetching those that are not here.

        Of each owner only those of its own steps: no hospital speaks for another.
        """
        for owner in (CONSORTIUM, POOL, *self._hospitals()):
            prefix = f"{owner}/{self.run}/"
            for key in keys(self._settings.store, f"{prefix}manifests"):
                relative = key.removeprefix(prefix)
                found = MANIFEST.fullmatch(relative)
                if found and owner_of(found["step"], found["hospital"]) == owner:
                    self.fetch(relative, owner)
        return super().manifests()


def lake_store(settings: Settings, hospital: str) -> str:
    """The hospital's own bucket or folder, as this module's functions take it.

    Args:
        settings: Where lakes are.
        hospital: The hospital.
    """
    root = settings.lake_root(hospital)
    if root.startswith("s3a://"):
        return "s3://" + root.removeprefix("s3a://")
    return root if "://" in root else f"file://{Path(root).absolute()}"
