"""What a standing SuperNode keeps of a run, for whom, and how it ends."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from deltalake import write_deltalake
from small_federation import ROWS, gold_table, make_context

from tasks.errors import DataError, NotApproved, StoreUnavailable
from tasks.federation.flower import warm_executor as executor
from tasks.federation.hospital import client as hospital
from tasks.federation.hospital import joined_run, training_rows
from tasks.federation.hospital.config import OWN, HospitalConfig, config_of
from tasks.federation.hospital.joined_run import answer_of_run
from tasks.federation.hospital.row_cache import forget_rows
from tasks.federation.hospital.training_rows import TrainingRows
from tasks.federation.messages import Refusal
from tasks.federation.wire import Wire
from tasks.launch.environment import settings_environment
from tasks.objects import put
from tasks.run.step import Context, run_step
from tasks.run.stored_run import lake_store
from tasks.settings import Settings


def rows_of(wire: Wire) -> int:
    """The training rows that a hospital's statistics are of."""
    return int(np.frombuffer(wire["rows"])[0])


class Site:
    """Two hospitals whose SuperNodes run as one user with one home."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        made = make_context(root / "home")
        self.settings = Settings(
            home=root / "home",
            lake=f"file://{root}/home/lake/{{hospital}}",
            store=f"file://{root}/store",
            federation="standing",
        )
        self.context = Context(made.plan, made.run, self.settings, None)
        self.study = made.study
        for name, value in settings_environment(self.settings).items():
            patch.setenv(name, value)
        put(
            self.settings.store,
            "consortium/r1/plan.json",
            (made.run.path / "plan.json").read_bytes(),
        )

    def joins(self, name: str, run: str = "r1", **changes: object) -> None:
        table = self.context.run.read("features", name).tables["gold"]
        config = HospitalConfig(
            hospital=name,
            gold=table.uri,
            version=0,
            study=self.study,
            lake=lake_store(self.settings, name),
            state=f"state/{run}-{changes.get('version', 0)}",
            ends=datetime.now(UTC) + timedelta(hours=1),
        ).model_copy(update=changes)
        key = f"runs/{run}/files/join.{name}/hospital.json"
        put(lake_store(self.settings, name), key, config.model_dump_json().encode())

    def ask(self, name: str, run: str = "r1", question: str = "statistics") -> Wire:
        self._patch.setenv(OWN, name)
        return answer_of_run(run, question, {"features": len(self.study.features)})

    def rows(self, name: str) -> int:
        return rows_of(self.ask(name))

    def refused(self, name: str, run: str = "r1") -> Refusal:
        found = Refusal.decode(self.ask(name, run))
        assert found is not None
        return found

    def kept(self, name: str) -> Path:
        return self.settings.home / "federation" / name / "rows"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_two_supernodes_of_one_user_answer_from_their_own_rows(site: Site) -> None:
    for name in ("north", "south"):
        site.joins(name)
    # Twice each: read, and then kept.
    found = [site.rows(name) for name in ("north", "south", "north", "south")]
    assert found == [180, 144, 180, 144]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The versions whose rows were read."""
    real, versions = joined_run.read_training_rows, list[int]()

    def reading(config: HospitalConfig) -> TrainingRows:
        versions.append(config.version)
        return real(config)

    monkeypatch.setattr(joined_run, "read_training_rows", reading)
    return versions


def test_a_hospital_that_joins_anew_with_another_version_answers_from_that(
    site: Site, read: list[int]
) -> None:
    site.joins("north")
    assert site.rows("north") == 180
    uri = site.context.run.read("features", "north").tables["gold"].uri
    write_deltalake(uri, gold_table(site.study, "north", 100), mode="overwrite")
    assert site.rows("north") == 180
    site.joins("north", version=1)
    assert [site.rows("north") for _ in range(2)] == [60, 60]
    site.ask("north", question="train")
    assert read == [0, 1]


@pytest.mark.parametrize("question", ["statistics", "train"])
def test_a_time_that_a_hospital_has_renewed_is_noticed_and_its_rows_are_kept(
    site: Site, read: list[int], question: str
) -> None:
    site.joins("north")
    site.rows("north")
    site.joins("north", ends=datetime.now(UTC) - timedelta(seconds=1))
    assert "let this run use its table until" in site.refused("north").reason
    site.joins("north")
    refusal = Refusal.decode(site.ask("north", question=question))
    # The message of this test has no model to train, which is looked at after the time.
    assert refusal is None or "until" not in refusal.reason
    assert site.rows("north") == 180
    assert read == [0]


def test_what_was_kept_for_another_hospital_is_not_used(site: Site) -> None:
    for name in ("north", "south"):
        site.joins(name)
        site.rows(name)
    shutil.rmtree(site.kept("south"))
    shutil.copytree(site.kept("north"), site.kept("south"))
    assert "not hospital south's" in site.refused("south").reason


def test_rows_are_kept_where_nobody_else_may_look(site: Site) -> None:
    site.joins("north")
    site.rows("north")
    for folder in (site.kept("north"), site.kept("north") / "r1"):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("place", ["", "r1"])
@pytest.mark.parametrize("kind", ["open", "foreign", "link"])
def test_a_folder_that_somebody_else_could_read_is_not_used(
    site: Site, place: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.joins("north")
    folder = site.kept("north") / place
    folder.mkdir(parents=True)
    site.kept("north").chmod(0o700)
    if kind == "open":
        folder.chmod(0o755)
    elif kind == "foreign":
        if os.getuid() == 0:
            os.chown(folder, 12345, -1)
        else:
            monkeypatch.setattr(os, "getuid", lambda: 12345)
    else:
        folder.rmdir()
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    assert "not this user's alone" in site.refused("north").reason
    assert not list(tmp_path.rglob("rows.npz"))


def test_rows_are_forgotten_with_the_supernode_and_after_two_runs(site: Site) -> None:
    for number, run in enumerate(("r1", "r2", "r3")):
        site.joins("north", run)
        site.ask("north", run)
        os.utime(site.kept("north") / run, (number, number))
    assert sorted(path.name for path in site.kept("north").iterdir()) == ["r2", "r3"]
    forget_rows(site.settings, "north")
    assert not site.kept("north").exists()
    forget_rows(site.settings, "north")


def test_a_run_that_a_hospital_has_refused_is_not_waited_for(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.refused("north").later
    approved = tmp_path / "approved.yaml"
    approved.write_text("studies: []\n")
    theirs = site.settings.model_copy(update={"approved": str(approved)})
    with pytest.raises(NotApproved):
        run_step("join", "r1", theirs, "north")
    said = site.refused("north")
    assert not said.later
    assert said.reason.startswith("NotApproved: hospital north: this hospital has not approved")
    approved.write_text("studies:\n  - name: small\n")
    run_step("join", "r1", theirs, "north")
    assert site.rows("north") == 180


def test_a_run_may_use_the_table_for_a_week_more_than_its_deadlines(site: Site) -> None:
    run_step("join", "r1", site.settings, "north")
    ends = config_of(site.settings, "r1", "north").ends
    assert ends is not None
    left = (ends - datetime.now(UTC)).total_seconds()
    assert left == pytest.approx(7 * 86400 + 400 + 500, abs=60)
    site.joins("south", ends=None)
    with pytest.raises(DataError, match="without an end"):
        config_of(site.settings, "r1", "south")


def test_rows_that_could_not_be_read_for_now_are_read_at_the_next_question(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "hospital.json"
    table = site.context.run.read("features", "north").tables["gold"]
    config = HospitalConfig(
        hospital="north",
        gold=table.uri,
        version=0,
        study=site.study,
        lake=f"file://{tmp_path}/lake",
        state="state",
    )
    path.write_text(config.model_dump_json())
    monkeypatch.setattr(hospital, "_ready", {})

    features = {"features": len(site.study.features)}

    def away(*_: object) -> None:
        raise StoreUnavailable("the store does not answer")

    with monkeypatch.context() as patch:
        for module in (hospital, training_rows):
            patch.setattr(module, "read_training_rows", away)
        executor._rows_without_threads(path)
        said = Refusal.decode(hospital.answer(str(path), "statistics", features))
    assert said == Refusal("StoreUnavailable: the store does not answer", later=True)
    found = hospital.answer(str(path), "statistics", features)
    assert rows_of(found) == 180
    assert ROWS["north"] == 300
