"""What the service `keys` makes: each party's own, once, and nothing where a name is refused."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from lake.s3_server import S3Server, s3_server
from scripts import load_script

from smoke.command import ROOT
from tasks.errors import SettingsError
from tasks.federation.deployment.certificates import make_node_key
from tasks.lake.identities import Key
from tasks.launch.environment import read_credentials

VOLUMES = (
    *("airflow", "credentials", "federation", "logs", "mlflow", "postgres", "registered", "s3"),
    *("s3-data", "sign-in", "superlink", "hospitals/hospital-1"),
)
Given = dict[Path, tuple[int, int]]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, with empty volumes in a temporary folder."""
    monkeypatch.syspath_prepend(ROOT / "compose")
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
    assert "fedrisk-hospital:abc123" in (kit / "compose.yaml").read_text()


def test_a_kits_user_that_is_no_pair_of_numbers_is_refused_before_anything_is_made(
    keys: ModuleType, given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT_USER", "me:staff")
    with pytest.raises(SettingsError, match=r"KIT_USER=me:staff: expected two numbers"):
        keys.main(["hospital-4"])
    assert files(tmp_path) == {}


def put_away(kit: Path) -> Path:
    """Move a kit aside, as whoever wants a new one must."""
    return kit.rename(kit.with_name(f"{kit.name}-before"))


def test_a_hospital_that_is_removed_loses_both_keys_and_gets_others_with_its_next_kit(
    keys: ModuleType, given: Given, tmp_path: Path
) -> None:
    keys.main([])
    others = files(tmp_path / "keys")
    keys.main(["hospital-4"])
    before = put_away(tmp_path / "kits" / "hospital-4")
    with pytest.raises(SettingsError, match=r"is registered\. .*/keys\.py --remove hospital-4$"):
        keys.main(["hospital-4"])
    keys.main([], "hospital-4")
    left = files(tmp_path / "keys")
    assert set(left) == set(others)
    # The store alone has to know of it.
    assert {name for name in left if left[name][0] != others[name][0]} == {"s3/identities/s3.json"}
    keys.main([])
    assert files(tmp_path / "keys") == left
    keys.main(["hospital-4"])
    again = tmp_path / "kits" / "hospital-4"
    for name in ("node.key", "credentials.env"):
        assert (again / name).read_text() != (before / name).read_text()


def test_a_running_store_takes_the_key_of_a_removed_hospital_no_more(
    keys: ModuleType, given: Given, tmp_path: Path
) -> None:
    keys.main(["hospital-4"])
    own = read_credentials(str(tmp_path / "keys" / "credentials" / "{owner}.env"), "hospital-4")
    key = Key(own["AWS_ACCESS_KEY_ID"], own["AWS_SECRET_ACCESS_KEY"])
    with s3_server(tmp_path / "store", ["hospital-4"]) as running:
        server = S3Server(running.endpoint, {"hospital-4": key})
        told = tmp_path / "store" / "identities.json"
        [process] = [
            p
            for p in psutil.process_iter(["cmdline"])
            if f"-s3.config={told}" in (p.info["cmdline"] or ())
        ]

        def answers(expected: int) -> None:
            # As the store's script does with what `keys` leaves.
            shutil.copyfile(tmp_path / "keys" / "s3" / "identities" / "s3.json", told)
            process.send_signal(signal.SIGHUP)
            end, found = time.monotonic() + 400, 0
            while found != expected:
                assert time.monotonic() < end, f"expected {expected}, and it answers {found}"
                time.sleep(0.1)
                found, _ = server.request("hospital-4", "PUT", "/fl-demo-data-hospital-4/x", b"1")

        answers(200)
        keys.main([], "hospital-4")
        answers(403)
        put_away(tmp_path / "kits" / "hospital-4")
        keys.main(["hospital-4"])
        # Nor once the hospital has another.
        answers(403)


def test_only_keys_that_stay_away_are_removed(
    keys: ModuleType, given: Given, tmp_path: Path
) -> None:
    keys.main([])
    before = files(tmp_path)
    with pytest.raises(SettingsError, match=r"not registered \(registered: hospital-1\)"):
        keys.main([], "hospital-4")
    with pytest.raises(SettingsError, match="hospital-1 is part of the stack, whose next start"):
        keys.main([], "hospital-1")
    with pytest.raises(SettingsError, match="hospital-1 is part of the stack, which makes"):
        keys.main(["hospital-1"])
    for owner in ("consortium", "../superlink/ca"):
        with pytest.raises(SettingsError, match="expected lower-case letters"):
            keys.main([], owner)
    assert files(tmp_path) == before


def test_a_hospital_whose_removal_was_cut_off_can_be_removed(
    keys: ModuleType, given: Given, tmp_path: Path
) -> None:
    keys.main(["hospital-4"])
    (tmp_path / "keys" / "registered" / "hospital-4.pub").unlink()
    keys.main([], "hospital-4")
    assert not (tmp_path / "keys" / "credentials" / "hospital-4.env").exists()


@pytest.mark.parametrize("brings", [False, True])
def test_a_hospital_of_the_stack_does_not_take_the_place_of_a_kits(
    keys: ModuleType, given: Given, tmp_path: Path, brings: bool
) -> None:
    keys.main(["hospital-4"])
    own = tmp_path / "keys" / "hospitals" / "hospital-4"
    own.mkdir()
    if brings:
        make_node_key(own)
    before = files(tmp_path)
    with pytest.raises(SettingsError, match=r"the registered key is not .* --remove hospital-4$"):
        keys.main([])
    assert files(tmp_path) == before
    # Whoever means it says so: the kit is shut out first.
    keys.main([], "hospital-4")
    registered = tmp_path / "keys" / "registered" / "hospital-4.pub"
    assert not registered.exists()
    keys.main([])
    assert registered.read_text() == (own / "node.pub").read_text()


def test_the_key_that_a_kit_has_may_come_as_a_hospital_of_the_stack(
    keys: ModuleType, given: Given, tmp_path: Path
) -> None:
    keys.main(["hospital-4"])
    own = tmp_path / "keys" / "hospitals" / "hospital-4"
    own.mkdir()
    # It is the key that counts: the comment of the registered one is another.
    public = (tmp_path / "kits" / "hospital-4" / "node.pub").read_text()
    (own / "node.pub").write_text(public.replace(" hospital-4", " from its administrator"))
    keys.main([])
    registered = tmp_path / "keys" / "registered" / "hospital-4.pub"
    assert registered.read_text() == (own / "node.pub").read_text()
