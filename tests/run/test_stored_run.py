"""A run that several machines share, each with a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from lake.s3_server import s3_server

from tasks.errors import DataError, StoreUnavailable
from tasks.objects import get, keys, put, remove
from tasks.run.folder import RunFolder
from tasks.run.manifest import Manifest
from tasks.run.plan import Request, make_plan, read_plan
from tasks.run.steps import owner_of
from tasks.run.stored_run import StoredRun, open_run
from tasks.settings import Settings


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
    run.upload_step(step, hospital)
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


def test_a_hospital_does_not_speak_for_another_nor_for_the_consortium(machine: Machines) -> None:
    """Hospital 1 may write what it likes below its own prefix."""
    store = f"file://{machine.root}/store"
    leave(open_run(machine("h2"), "r1", "hospital-2"), "score", "hospital-2", scores="true")

    def manifest(step: str, hospital: str | None, **files: str) -> bytes:
        made = Manifest(step=step, study="stroke", run="r1", hospital=hospital, files=files)
        return made.model_dump_json().encode()

    for name, content in {
        "score.hospital-2": manifest("score", "hospital-2"),
        "federated": manifest("federated", None),
        "central": manifest("central", None),
    }.items():
        path = machine.root / "store" / "hospital-1" / "r1" / "manifests" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    reader = open_run(machine("reader"), "r1")
    assert [(each.step, each.hospital) for each in reader.manifests()] == [("score", "hospital-2")]
    found = reader.read("score", "hospital-2")
    assert (reader.path / found.files["scores"]).read_text() == "true"
    assert reader.find("federated") is None
    put(store, "hospital-1/r1/manifests/score.hospital-1.json", manifest("evaluate", None))
    with pytest.raises(DataError, match=r"score\.hospital-1\.json is of step 'evaluate'"):
        reader.find("score", "hospital-1")


@pytest.mark.parametrize(
    "path",
    [
        "manifests/score.hospital-2.json",
        "manifests/federated.json",
        "files/score.hospital-2/scores.csv",
        "files/score.hospital-1/../score.hospital-2/scores.csv",
        "files/score.hospital-1",
        "files/score.hospital-1//scores.csv",
        "files/score.hospital-10/scores.csv",
        "../../../outside",
        "/etc/hostname",
        "plan.json",
    ],
)
def test_a_manifest_names_no_file_but_its_own_steps(machine: Machines, path: str) -> None:
    store, base = f"file://{machine.root}/store", "hospital-1/r1"
    if not path.startswith("/") and ".." not in path and "//" not in path:
        put(store, f"{base}/{path}" + ("/x" if path.endswith("1") else ""), b"forged")
    made = Manifest(
        step="score", study="stroke", run="r1", hospital="hospital-1", files={"scores": path}
    )
    put(store, f"{base}/manifests/score.hospital-1.json", made.model_dump_json().encode())
    reader = open_run(machine("reader"), "r1")
    with pytest.raises(DataError, match=r"Expected files below files/score\.hospital-1/"):
        reader.find("score", "hospital-1")
    assert not (reader.path / path).is_file() or path.startswith("/")
    here = [each for each in (machine.root / "reader").rglob("*") if each.is_file()]
    assert not [each for each in here if each.read_bytes() == b"forged"]


def test_a_manifest_of_another_run_or_none_at_all_is_bad_input(machine: Machines) -> None:
    store = f"file://{machine.root}/store"
    reader = open_run(machine("reader"), "r1")
    made = Manifest(step="score", study="stroke", run="r0", hospital="hospital-1")
    put(store, "hospital-1/r1/manifests/score.hospital-1.json", made.model_dump_json().encode())
    with pytest.raises(DataError, match="run 'r0'"):
        reader.find("score", "hospital-1")
    put(store, "hospital-2/r1/manifests/score.hospital-2.json", b'{"step": "score"}')
    with pytest.raises(DataError, match="is not sound: study: Field required"):
        reader.find("score", "hospital-2")


def test_dealt_rows_reach_their_own_hospital_and_never_the_store(machine: Machines) -> None:
    run = open_run(machine("dealer"), "r1", "pool")
    folder = run.folder("deal")
    names = ["hospital-1", "hospital-2"]
    for name in names:
        (folder / f"{name}.csv").write_text(f"rows of {name}")
    run.upload_step("deal")
    files = {name: run.relative(folder / f"{name}.csv") for name in names}
    run.write(Manifest(step="deal", study="stroke", run="r1", files=files))
    texts = [p.read_text() for p in (machine.root / "store").rglob("*") if p.is_file()]
    assert not [text for text in texts if "rows of" in text]
    own = open_run(machine("h1"), "r1", "hospital-1")
    dealt = own.read("deal").files
    assert (own.path / dealt["hospital-1"]).read_text() == "rows of hospital-1"
    assert not (own.path / dealt["hospital-2"]).exists()


@pytest.mark.parametrize("leaves", [True, False])
def test_a_local_model_leaves_its_hospital_only_where_the_study_lets_it(
    machine: Machines, leaves: bool
) -> None:
    overrides = [f"evaluation.cross_site={str(leaves).lower()}"]
    make_plan(Request(study="stroke", overrides=overrides), "r2", machine("airflow"))
    first = open_run(machine("a"), "r2", "hospital-1")
    (first.folder("local", "hospital-1") / "model").write_text("weights")
    first.upload_step("local", "hospital-1")
    files = {"model": "files/local.hospital-1/model"}
    first.write(
        Manifest(step="local", study="stroke", run="r2", hospital="hospital-1", files=files)
    )

    def read_by(owner: str) -> str | None:
        run = open_run(machine(f"pod-{owner}"), "r2", owner)
        path = run.path / run.read("local", "hospital-1").files["model"]
        return path.read_text() if path.exists() else None

    # Its own step ``score`` runs on another machine than ``local`` did.
    assert read_by("hospital-1") == "weights"
    theirs = "weights" if leaves else None
    assert read_by("hospital-2") == read_by("consortium") == theirs
    shared = [key for key in keys(f"file://{machine.root}/store", "") if "local" in key]
    assert any("files" in key for key in shared) == leaves


def test_an_attempt_goes_on_from_what_the_last_one_shared_but_keys_stay(
    machine: Machines,
) -> None:
    first = open_run(machine("a"), "r1")
    folder = first.folder("federated")
    (folder / "checkpoint.npz").write_bytes(b"round 3")
    (folder / "private").mkdir()
    (folder / "private" / "server.key").write_bytes(b"secret")
    first.upload_step("federated")
    again = open_run(machine("b"), "r1")
    again.fetch_step("federated")
    assert (again.folder("federated") / "checkpoint.npz").read_bytes() == b"round 3"
    assert not list((machine.root / "store").rglob("server.key"))


def test_a_file_that_grows_is_fetched_anew(machine: Machines) -> None:
    writer, reader = open_run(machine("a"), "r1"), open_run(machine("b"), "r1")
    path = writer.folder("federated") / "rounds.jsonl"
    for text in ("1\n", "1\n2\n"):
        path.write_text(text)
        writer.upload_step("federated")
        assert reader.refresh("files/federated/rounds.jsonl").read_text() == text


def test_objects_are_written_listed_and_deleted(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/bucket"
    assert get(store, "a/b") is None
    assert list(keys(store, "a")) == []
    put(store, "a/b", b"1")
    assert list(keys(store, "a")) == ["a/b"]
    remove(store, "a/b")
    remove(store, "a/b")
    assert get(store, "a/b") is None


@pytest.mark.parametrize("name", ["a/../b", "a//b", "../a"])
def test_what_is_no_name_of_an_object_is_bad_input(tmp_path: Path, name: str) -> None:
    for ask in (get, remove, lambda store, key: put(store, key, b""), lambda *a: list(keys(*a))):
        with pytest.raises(DataError, match="is no name of an object"):
            ask(f"file://{tmp_path}/bucket", name)


def test_a_bucket_that_is_not_there_is_bad_input_and_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(tmp_path, ["h1"]) as server:
        for name, value in server.environment("admin").items():
            monkeypatch.setenv(name, value)
        put("s3://fedrisk-runs", "a/b", b"1")
        assert get("s3://fedrisk-runs", "a/b") == b"1"
        assert get("s3://fedrisk-runs", "NoSuchBucket") is None
        assert list(keys("s3://fedrisk-runs", "none")) == []
        remove("s3://fedrisk-runs", "none")
        for ask in (get, remove, lambda at, key: put(at, key, b""), lambda *a: list(keys(*a))):
            with pytest.raises(DataError, match="s3://mistyped: there is no such bucket") as error:
                ask("s3://mistyped", "a/b")
            assert error.value.exit_code == 2


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
