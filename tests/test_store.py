"""A run that several machines share, each with a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.manifest import Manifest, RunFolder
from tasks.objects import StoreUnavailable, get, keys, put, remove
from tasks.plan import Request, make_plan, read_plan
from tasks.settings import Settings
from tasks.store import StoredRun, open_run, owner_of


class Machines:
    """Settings of several machines around one store."""

    def __init__(self, root: Path, studies: Path) -> None:
        self.root, self._studies = root, studies

    def __call__(self, name: str) -> Settings:
        return Settings(
            home=self.root / name,
            store=f"file://{self.root}/store",
            lake=f"{self.root}/lake/{{hospital}}",
            studies=self._studies,
        )


@pytest.fixture
def machine(tmp_path: Path, checkout: Path) -> Machines:
    found = Machines(tmp_path, checkout / "dags" / "studies")
    make_plan(Request(study="stroke"), "r1", found("airflow"))
    return found


def leave(run: RunFolder, step: str, hospital: str | None = None, **files: str) -> None:
    """What a step does: files, then the manifest."""
    folder = run.folder(step, hospital)
    for name, text in files.items():
        (folder / name).write_text(text)
    run.share(step, hospital)
    named = {name: run.relative(folder / name) for name in files}
    run.write(Manifest(step=step, study="stroke", run="r1", hospital=hospital, files=named))


def test_without_a_store_a_run_is_a_folder(tmp_path: Path) -> None:
    assert type(open_run(Settings(home=tmp_path), "r1")) is RunFolder


def test_another_machine_reads_the_plan_a_manifest_and_its_files(machine: Machines) -> None:
    leave(open_run(machine("a"), "r1"), "federated", model="weights")
    other = open_run(machine("b"), "r1", "hospital-1")
    assert read_plan(other).study.name == "stroke"
    assert (other.path / other.read("federated").files["model"]).read_text() == "weights"
    assert other.find("evaluate") is None
    assert [each.step for each in open_run(machine("c"), "r1").manifests()] == ["federated"]


def test_files_come_too_where_the_manifest_was_listed_before(machine: Machines) -> None:
    leave(open_run(machine("a"), "r1"), "evaluate", report="<html>")
    other = open_run(machine("b"), "r1")
    other.manifests()
    assert (other.path / other.read("evaluate").files["report"]).exists()


def test_each_owner_writes_below_its_own_prefix(machine: Machines) -> None:
    leave(open_run(machine("a"), "r1", "hospital-1"), "score", "hospital-1")
    leave(open_run(machine("b"), "r1", "pool"), "central", model="w")
    store = machine.root / "store"
    assert (store / "hospital-1" / "r1" / "manifests" / "score.hospital-1.json").exists()
    assert (store / "pool" / "r1" / "files" / "central" / "model").exists()
    assert owner_of("central", None) == owner_of("deal", None) == "pool"
    assert owner_of("promote", None) == "consortium"


def test_dealt_rows_reach_their_own_hospital_and_never_the_store(machine: Machines) -> None:
    run = open_run(machine("dealer"), "r1", "pool")
    folder = run.folder("deal")
    names = ["hospital-1", "hospital-2"]
    for name in names:
        (folder / f"{name}.csv").write_text(f"rows of {name}")
    run.share("deal")
    files = {name: run.relative(folder / f"{name}.csv") for name in names}
    run.write(Manifest(step="deal", study="stroke", run="r1", files=files))
    texts = [p.read_text() for p in (machine.root / "store").rglob("*") if p.is_file()]
    assert not [text for text in texts if "rows of" in text]
    own = open_run(machine("h1"), "r1", "hospital-1")
    dealt = own.read("deal").files
    assert (own.path / dealt["hospital-1"]).read_text() == "rows of hospital-1"
    assert not (own.path / dealt["hospital-2"]).exists()


def test_an_attempt_goes_on_from_what_the_last_one_shared_but_keys_stay(
    machine: Machines,
) -> None:
    first = open_run(machine("a"), "r1")
    folder = first.folder("federated")
    (folder / "checkpoint.npz").write_bytes(b"round 3")
    (folder / "private").mkdir()
    (folder / "private" / "server.key").write_bytes(b"secret")
    first.share("federated")
    again = open_run(machine("b"), "r1")
    again.fetch("federated")
    assert (again.folder("federated") / "checkpoint.npz").read_bytes() == b"round 3"
    assert not list((machine.root / "store").rglob("server.key"))


def test_a_file_that_grows_is_fetched_anew(machine: Machines) -> None:
    writer, reader = open_run(machine("a"), "r1"), open_run(machine("b"), "r1")
    path = writer.folder("federated") / "rounds.jsonl"
    for text in ("1\n", "1\n2\n"):
        path.write_text(text)
        writer.share("federated")
        assert reader.newest("files/federated/rounds.jsonl").read_text() == text


def test_objects_are_written_listed_and_deleted(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/bucket"
    assert get(store, "a/b") is None
    assert list(keys(store, "a")) == []
    put(store, "a/b", b"1")
    assert list(keys(store, "a")) == ["a/b"]
    remove(store, "a/b")
    remove(store, "a/b")
    assert get(store, "a/b") is None


def test_a_store_that_does_not_answer_is_transient_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import objects

    monkeypatch.setattr(objects, "PATIENCE", 2.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(StoreUnavailable, match=r"s3://runs: could not read a") as error:
        get("s3://runs", "a")
    assert error.value.exit_code == 4


def test_a_run_that_is_not_there_says_so(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, store=f"file://{tmp_path}/store")
    with pytest.raises(DataError, match="no plan"):
        read_plan(StoredRun(settings, "none", "consortium"))
