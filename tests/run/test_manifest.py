"""A manifest is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import DataError, SettingsError
from tasks.files import write_atomically
from tasks.run.folder import RunFolder
from tasks.run.manifest import Manifest, TableVersion


def manifest(step: str = "collect", hospital: str | None = "a", **more: object) -> Manifest:
    return Manifest.model_validate(
        {"step": step, "study": "stroke", "run": "r1", "hospital": hospital, **more}
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "r1")
    table = TableVersion(uri="/lake/a", version=3, rows=7)
    written = manifest(tables={"bronze": table}, figures={"rows": 7}, notes=["all well"])
    folder.write(written)
    assert folder.read("collect", "a") == written
    assert folder.find("collect", "b") is None


def test_a_missing_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"step features of hospital a .* Run it first"):
        RunFolder(tmp_path, "r1").read("features", "a")


def test_a_write_that_fails_leaves_the_former_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, b"first")

    def broken(self: Path, target: Path) -> None:
        raise OSError("no space")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"second")
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize("run", ["", "../etc", "a/b", "-x", "a..b", "x" * 300])
def test_a_run_id_cannot_leave_its_folder(tmp_path: Path, run: str) -> None:
    with pytest.raises(SettingsError, match="run id"):
        RunFolder(tmp_path, run)


def test_airflows_own_run_ids_are_good_folder_names(tmp_path: Path) -> None:
    RunFolder(tmp_path, "scheduled__2026-11-24T03:00:00+00:00")


def test_manifests_come_in_the_order_of_their_start(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "r1")
    folder.write(manifest("validate", started="2026-01-01T00:00:02+00:00"))
    folder.write(manifest("collect", started="2026-01-01T00:00:01+00:00"))
    assert [m.step for m in folder.manifests()] == ["collect", "validate"]


def test_a_figure_that_is_not_defined_is_null_in_the_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "r1")
    folder.write(manifest(figures={"auroc": float("nan")}))
    assert folder.read("collect", "a").figures == {"auroc": None}
