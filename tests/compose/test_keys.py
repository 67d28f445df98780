"""What the service `keys` makes: each party's own, once, and nothing where a name is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from scripts import load_script

from smoke.stack import ROOT
from tasks.errors import SettingsError

VOLUMES = (
    *("airflow", "credentials", "federation", "logs", "mlflow", "postgres", "registered", "s3"),
    *("s3-data", "sign-in", "superlink", "hospitals/hospital-1"),
)
Given = dict[Path, tuple[int, int]]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, with empty volumes in a temporary folder."""
    module = load_script(ROOT / "compose" / "keys.py")
    for volume in VOLUMES:
        (tmp_path / "keys" / volume).mkdir(parents=True)
    (tmp_path / "kits").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path / "keys")
    monkeypatch.setattr(module, "KITS", tmp_path / "kits")
    for name, value in {"ADMIN": "admin", "AWS_ENDPOINT_URL": "http://s3:8333"}.items():
        monkeypatch.setenv(name, value)
    for name in ("KIT_USER", "STACK_TAG"):
        monkeypatch.delenv(name, raising=False)
    return module


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    """To whom each file was given, by the path that it has in the end."""
    found: Given = {}

    def chown(path: Path, user: int, group: int, **_: object) -> None:
        found[Path(path)] = (user, group)

    def fchown(descriptor: int, user: int, group: int) -> None:
        new = Path(f"/proc/self/fd/{descriptor}").readlink()
        found[new.with_name(new.name.removeprefix(".").removesuffix(".new"))] = (user, group)

    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(os, "fchown", fchown)
    return found


def files(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Content, time of change and inode of every file."""
    return {
        str(path.relative_to(folder)): (
            path.read_bytes(),
            path.stat().st_mtime_ns,
            path.stat().st_ino,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_second_start_changes_nothing(keys: ModuleType, given: Given, tmp_path: Path) -> None:
    keys.main([])
    before = files(tmp_path / "keys")
    assert {"superlink/tls.crt", "registered/hospital-1.pub", "s3/identities/s3.json"} <= {*before}
    keys.main([])
    # Not even a file's time: the SuperLink is restarted once its certificate is another.
    assert files(tmp_path / "keys") == before


def test_a_secret_is_its_readers_before_it_has_its_name(
    keys: ModuleType, given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early: Given = {}
    replace = Path.replace

    def published(path: Path, target: Path) -> Path:
        early[Path(target)] = given.get(Path(target), (0, 0))
        assert not path.match("*.pub"), "the SuperLink would take it for a key"
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", published)
    keys.main(["hospital-4"])
    for name in ("s3/identities/s3.json", "registered/hospital-1.pub", "registered/hospital-4.pub"):
        assert early[tmp_path / "keys" / name] == (1000, 1000)


def test_a_start_that_was_cut_off_does_not_stop_the_next(
    keys: ModuleType, given: Given, tmp_path: Path
) -> None:
    (tmp_path / "keys" / "hospitals" / "hospital-1" / "made").mkdir()
    keys.main([])
    assert (tmp_path / "keys" / "registered" / "hospital-1.pub").exists()


@pytest.mark.parametrize("name", ["admin", "pool", "consortium", "Upper", "hospital_4"])
def test_a_refused_name_leaves_no_trace(
    keys: ModuleType, given: Given, tmp_path: Path, name: str
) -> None:
    keys.main([])
    before = files(tmp_path)
    with pytest.raises(SettingsError, match=f"hospital {name!r}"):
        keys.main([name])
    (tmp_path / "keys" / "hospitals" / name).mkdir()
    with pytest.raises(SettingsError, match=f"hospital {name!r}"):
        keys.main([])
    shutil.rmtree(tmp_path / "keys" / "hospitals" / name)
    assert files(tmp_path) == before
    keys.main(["hospital-4"])


@pytest.mark.parametrize(("told", "expected"), [("1001:1002", (1001, 1002)), ("", (1000, 1000))])
def test_a_kit_is_whose_it_shall_be(
    keys: ModuleType,
    given: Given,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: str,
    expected: tuple[int, int],
) -> None:
    monkeypatch.setenv("KIT_USER", told)
    monkeypatch.setenv("STACK_TAG", "abc123")
    keys.main(["hospital-4"])
    kit = tmp_path / "kits" / "hospital-4"
    paths = [kit, *kit.iterdir()]
    assert {path.name for path in paths} >= {"node.key", "compose.yaml", "credentials.env"}
    assert {given[path] for path in paths} == {expected}
    assert "fedrisk-federation:abc123" in (kit / "compose.yaml").read_text()


def test_a_kits_user_that_is_no_pair_of_numbers_is_refused_before_anything_is_made(
    keys: ModuleType, given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT_USER", "me:staff")
    with pytest.raises(SettingsError, match=r"KIT_USER=me:staff: expected two numbers"):
        keys.main(["hospital-4"])
    assert files(tmp_path) == {}
