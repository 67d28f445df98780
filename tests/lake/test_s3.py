"""A lake and sources in S3: the same rows as on disk, and clear errors of the store."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lake.s3_server import S3Server, free_ports, s3_server

from tasks.data.fetch import local_copy
from tasks.errors import DataError, ExitCode, StoreUnavailable
from tasks.lake.s3 import s3a_configuration
from tasks.lake.session import close_session
from tasks.model.rows import load_rows
from tasks.objects import keys
from tasks.run.manifest import Manifest
from tasks.run.plan import Request, make_plan
from tasks.run.step import run_step
from tasks.s3 import store_error, store_options
from tasks.settings import Settings
from tasks.study import Study, read_study

HOSPITALS = ["north", "south"]
STEPS = ("collect", "validate", "features")
LAKE = "s3a://fl-demo-data-{hospital}"
STUDY = """
name: small
title: A small study
pooling: allowed
id: id
target: {column: stroke, positive: ["1"], negative: ["0"]}
columns:
  age: {type: number, modality: demographics, range: [0, 120]}
  sex: {type: category, modality: demographics, categories: [Female, Male]}
  bmi: {type: number, modality: clinical, range: [8, 120], missing: [N/A], max_missing: 0.3}
source: {kind: own, format: csv}
hospitals:
  north: {path: "s3a://fl-demo-data-north/incoming/north.csv"}
  south: {path: "s3a://fl-demo-data-south/incoming/south.csv"}
split: {key: small}
federation: {min_hospitals: 2}
"""


def table() -> bytes:
    """A hospital's table of 120 made-up patients, the last of an impossible age."""
    rows = [
        f"p{i},{20 + i % 70},{('Female', 'Male')[i % 2]},"
        f"{'N/A' if i % 10 == 3 else 18 + i % 20},{int(i % 5 == 0)}"
        for i in range(120)
    ]
    return "\n".join(["id,age,sex,bmi,stroke", *rows, "p120,300,Male,20,0", ""]).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("store"), HOSPITALS) as running:
        for name in HOSPITALS:
            path = f"/fl-demo-data-{name}/incoming/{name}.csv"
            assert running.request(name, "PUT", path, table())[0] == 200
        yield running


@pytest.fixture
def as_north(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Act for hospital north, also in the JVM, which reads the key when it starts."""
    for name, value in server.environment("north").items():
        monkeypatch.setenv(name, value)
    close_session()
    yield server
    close_session()


def settings_of(folder: Path, lake: str = LAKE) -> Settings:
    """Settings of a home with the study."""
    (folder / "small.yaml").write_text(STUDY)
    return Settings(home=folder / "home", studies=folder, lake=lake)


def run_steps(run: str, settings: Settings) -> dict[str, Manifest]:
    """The three data steps of hospital north."""
    make_plan(Request(study="small"), run, settings)
    return {name: run_step(name, run, settings, "north") for name in STEPS}


def rows_of(manifest: Manifest, layer: str) -> list[dict[str, Any]]:
    """Rows of a manifest's table, sorted."""
    from deltalake import DeltaTable

    found = manifest.tables[layer]
    uri = found.uri.replace("s3a://", "s3://")
    read = DeltaTable(uri, version=found.version, storage_options=store_options(uri))
    return sorted(read.to_pyarrow_table().to_pylist(), key=repr)


@pytest.mark.slow
def test_the_data_steps_leave_the_same_rows_in_s3_as_on_disk(
    as_north: S3Server, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path)
    first = run_steps("one", settings)
    again = run_steps("two", settings.model_copy(update={"engine": "spark"}))
    (tmp_path / "disk").mkdir()
    local = run_steps("one", settings_of(tmp_path / "disk", lake=""))
    for name in STEPS:
        for layer, written in local[name].tables.items():
            here = rows_of(local[name], layer)
            assert len(here) == written.rows > 0
            for there in (first, again):
                assert there[name].tables[layer].uri == f"s3a://fl-demo-data-north/small/{layer}"
                assert rows_of(there[name], layer) == here, (name, layer)
            assert again[name].tables[layer].version > first[name].tables[layer].version
        assert first[name].figures == local[name].figures
    study: Study = read_study(tmp_path / "small.yaml")
    gold = first["features"].tables["gold"]
    rows = load_rows(gold.uri, study, gold.version, ("train",))
    assert len(rows) == local["features"].figures["parts"]["train"]["rows"]

    # The same session: a source that does not exist, and one of another hospital.
    for name in ("north/none.csv", "south/incoming/south.csv"):
        with pytest.raises(DataError, match=r"none\.csv does not exist|key may not read incoming"):
            local_copy(f"s3://fl-demo-data-{name}", tmp_path, "hospital north")


def step_of_its_own(
    settings: Settings, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run hospital north's first step like a launcher."""
    make_plan(Request(study="small"), "own", settings)
    command = [sys.executable, "-m", "tasks.cli", "step", "collect", "--study", "small"]
    return subprocess.run(
        [*command, "--run", "own", "--hospital", "north"],
        env={
            **os.environ,
            **environment,
            "FEDRISK_HOME": str(settings.home),
            "FEDRISK_STUDIES": str(settings.studies),
            "FEDRISK_LAKE": settings.lake,
        },
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.slow
def test_another_hospitals_key_ends_a_step_as_bad_input(server: S3Server, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    done = step_of_its_own(settings, server.environment("south"))
    assert done.returncode == ExitCode.BAD_INPUT, done.stderr[-2000:]
    assert "s3://fl-demo-data-north: this party's key may not read" in done.stderr
    key = server.keys["south"]
    assert key.access not in done.stderr + done.stdout
    assert key.secret not in done.stderr + done.stdout


@pytest.mark.slow
def test_a_store_that_is_down_ends_a_step_as_transient(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    key = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with socket.socket() as silent:
        # It accepts connections and sends nothing.
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        for port in (free_ports(1)[0], silent.getsockname()[1]):
            endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
            done = step_of_its_own(settings, {**key, **endpoint})
            assert done.returncode == ExitCode.TRANSIENT, done.stderr[-2000:]
            assert "Is the store up?" in done.stderr


@pytest.mark.slow
def test_a_store_that_goes_down_during_a_step_is_transient(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = f"http://127.0.0.1:{free_ports(1)[0]}"
    for name, value in {**server.environment("north"), "AWS_ENDPOINT_URL": gone}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreUnavailable, match="Is the store up"):
        local_copy("s3a://fl-demo-data-north/x", tmp_path, "hospital n")


def test_a_model_reads_no_other_hospitals_table_and_waits_for_no_absent_store(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    study = read_study(tmp_path / "small.yaml")
    for name, value in server.environment("south").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match="bucket fl-demo-data-north refuses"):
        load_rows("s3a://fl-demo-data-north/small/gold", study)
    with pytest.raises(DataError, match="Run the step features first"):
        load_rows("s3a://fl-demo-data-south/small/gold", study)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(Exception, match="does not answer") as error:
        load_rows("s3a://fl-demo-data-south/small/gold", study)
    assert error.value.exit_code == ExitCode.TRANSIENT  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_a_refusal_for_listing_too(
    server: S3Server, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**server.environment("north"), wrong: "nobodys"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match="may not list"):
        list(keys("s3://fl-demo-data-north", "folder"))


def test_spark_is_configured_for_a_self_hosted_store_and_for_aws() -> None:
    prefix = "spark.hadoop.fs.s3a."
    own = s3a_configuration({"AWS_ENDPOINT_URL": "http://s3:8333", "AWS_ACCESS_KEY_ID": "a"})
    assert own[f"{prefix}endpoint"] == "http://s3:8333"
    assert own[f"{prefix}path.style.access"] == "true"
    assert own[f"{prefix}connection.ssl.enabled"] == "false"
    assert own[f"{prefix}aws.credentials.provider"].endswith(
        ".EnvironmentVariableCredentialsProvider"
    )
    assert "a" not in own.values()
    aws = s3a_configuration({"AWS_REGION": "eu-west-1"})
    assert aws[f"{prefix}endpoint.region"] == "eu-west-1"
    assert f"{prefix}endpoint" not in aws
    assert aws[f"{prefix}aws.credentials.provider"].endswith(".DefaultCredentialsProvider")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("java.nio.file.AccessDeniedException: x (Service: S3, Status Code: 403)", 2, "refuses"),
        ("org.apache.hadoop.fs.s3a.auth.NoAuthWithAWSException: none", 2, "has no key"),
        ("UnknownStoreException: NoSuchBucket", 2, "no bucket fl-demo-data-north"),
        ("java.net.UnknownHostException: nowhere", 4, "does not answer"),
        ("AWSStatus500Exception: Status Code: 503", 4, "does not answer"),
    ],
)
def test_a_stores_failures_are_distinguished(text: str, code: int, words: str) -> None:
    error = store_error(text, "s3a://fl-demo-data-north/small/gold", "hospital north")
    assert error is not None
    assert error.exit_code == code
    assert words in str(error)


def test_other_failures_are_not_attributed_to_the_store() -> None:
    assert store_error("java.net.ConnectException", "/home/lake/gold", "") is None
    assert store_error("DELTA_VERSION_NOT_FOUND", "s3a://b/gold", "") is None
    assert isinstance(store_error("Connect to s3:1 failed", "s3a://b/x", ""), StoreUnavailable)
