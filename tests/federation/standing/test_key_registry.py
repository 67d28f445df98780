"""The folder of registered keys, and what the SuperLink is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.federation.deployment.certificates import make_node_key
from tasks.federation.flower import control_cli as control
from tasks.federation.standing import key_registry as registered
from tasks.federation.standing.key_registry import GONE_FOR, RegisteredKeys


class Flower:
    """A SuperLink's register as Flower 1.41 keeps it with our change, and a clock."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.folder, self.now = root, root / "registered", 0.0
        self.folder.mkdir()
        self.live: dict[int, str] = {}
        self.asked: list[str] = []
        self.away = False
        patch.setattr(control, "register", self.register)
        patch.setattr(control, "unregister", self.unregister)
        self.keys = RegisteredKeys(self.folder, root / "scratch", lambda: self.now)

    def register(self, name: str, path: Path) -> int:
        self.asked.append(name)
        key = path.read_text()
        if self.away or key in self.live.values():
            raise RuntimeError("Public key already in use")
        self.live[len(self.asked)] = key
        return len(self.asked)

    def unregister(self, node: int) -> None:
        if self.away:
            raise RuntimeError("away")
        del self.live[node]

    def pair(self, name: str) -> str:
        folder = self.root / "keys" / name
        folder.mkdir(parents=True)
        return make_node_key(folder)[1].read_text()

    def write(self, name: str, content: str) -> None:
        (self.folder / f"{name}.pub").write_text(content)

    def look(self, later: float = 1.0) -> dict[str, int]:
        self.now += later
        self.keys.look()
        return self.keys.nodes


@pytest.fixture
def flower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flower:
    return Flower(tmp_path, monkeypatch)


def test_another_comment_is_the_same_key(flower: Flower) -> None:
    key = flower.pair("north")
    flower.write("north", key)
    before = flower.look()
    flower.write("north", f"{key} north, from its new administrator\n")
    assert flower.look() == before == {"north": 1}
    assert flower.asked == ["north"]


def test_a_hospital_that_is_removed_is_shut_out_and_may_come_back(flower: Flower) -> None:
    key = flower.pair("north")
    flower.write("north", key)
    flower.look()
    (flower.folder / "north.pub").unlink()
    flower.look()
    assert flower.look(GONE_FOR) == {}
    assert flower.live == {}
    flower.write("north", key)
    assert flower.look() == {"north": 2}


def test_a_key_that_is_gone_for_a_moment_changes_nothing(flower: Flower) -> None:
    key = flower.pair("north")
    flower.write("north", key)
    flower.look()
    (flower.folder / "north.pub").unlink()
    flower.look()
    flower.write("north", key)
    assert flower.look(GONE_FOR) == {"north": 1}


def test_a_new_key_takes_the_place_of_the_old_at_once(flower: Flower) -> None:
    flower.write("north", flower.pair("north"))
    flower.look()
    new = flower.pair("new")
    flower.write("north", new)
    assert flower.look() == {"north": 2}
    assert flower.live == {2: new}


def test_a_folder_that_cannot_be_read_changes_nothing(
    flower: Flower, caplog: pytest.LogCaptureFixture
) -> None:
    flower.write("north", flower.pair("north"))
    flower.look()
    flower.folder.rename(flower.root / "away")
    for _ in range(3):
        assert flower.look(GONE_FOR) == {"north": 1}
    assert len([r for r in caplog.records if "cannot be read" in r.message]) == 1


def test_files_that_are_no_hospitals_key_are_left_alone(flower: Flower) -> None:
    key = flower.pair("north")
    for name in (".north.pub.k3j2", "North", "north.old", "no_name"):
        flower.write(name, key)
    (flower.folder / ".north.pub.x.pub").write_text(key)
    (flower.folder / "folder.pub").mkdir()
    flower.write("south", "half a k")
    assert flower.look() == {}
    assert flower.asked == []


def test_a_key_that_becomes_unreadable_changes_nothing(flower: Flower) -> None:
    flower.write("north", flower.pair("north"))
    flower.look()
    flower.write("north", "ecdsa-sha2-nistp384 AAAA")
    assert flower.look(2 * GONE_FOR) == flower.look(2 * GONE_FOR) == {"north": 1}


def test_a_refused_key_is_tried_more_and_more_slowly_and_told_once(
    flower: Flower, caplog: pytest.LogCaptureFixture
) -> None:
    flower.write("north", flower.pair("north"))
    flower.away = True
    for _ in range(300):
        flower.look()
    assert 5 < len(flower.asked) < 15
    assert len([r for r in caplog.records if "could not be registered" in r.message]) == 1
    flower.away = False
    assert "north" in flower.look(registered.SLOWEST)


def test_a_hospital_that_flower_does_not_unregister_is_not_of_the_next_run(flower: Flower) -> None:
    flower.write("north", flower.pair("north"))
    flower.look()
    (flower.folder / "north.pub").unlink()
    flower.look()
    flower.away = True
    assert flower.look(GONE_FOR) == {}
    assert flower.live
    flower.away = False
    assert flower.look() == {}
    assert flower.live == {}
