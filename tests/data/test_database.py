"""A hospital's table in PostgreSQL, read from a real server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.data.fetch import SourceAway
from tasks.errors import DataError, StudyError
from tasks.federation.deployment.local import free_ports
from tasks.launch.environment import step_environment
from tasks.run.manifest import Manifest
from tasks.settings import Settings
from tests.data.conftest import HEADER, House, by_patient, patients

PASSWORD = "a key of the clinic's own"
PATH = "{path: north.csv}"


def programs() -> Path | None:
    """Where the server's programs are: Debian keeps them off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server with the table of hospital north; its port."""
    if (bin_folder := programs()) is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL's server is not installed")
        pytest.skip("PostgreSQL's server is not installed")
    # The server does not run as root.
    root = os.getuid() == 0
    user = {"user": "postgres", "group": "postgres"} if root else {}
    folder = Path(tmp_path_factory.mktemp("postgres"))
    for each in (folder, *folder.parents):
        if root and each.is_relative_to(Path("/tmp")) and each != Path("/tmp"):
            each.chmod(each.stat().st_mode | 0o011)
    data, key, port = folder / "data", folder / "key", free_ports(1)[0]
    data.mkdir()
    key.write_text(PASSWORD)
    if root:
        shutil.chown(data, "postgres")
        shutil.chown(folder, "postgres")
        shutil.chown(key, "postgres")

    def run(*command: str) -> None:
        subprocess.run(command, check=True, timeout=1500, capture_output=True, cwd=folder, **user)

    run(str(bin_folder / "initdb"), "-D", str(data), "-U", "clinic", "-A", "scram-sha-256",
        f"--pwfile={key}", "--no-sync")  # fmt: skip
    options = f"-c listen_addresses=127.0.0.1 -c fsync=off -k {folder} -p {port}"
    control = str(bin_folder / "pg_ctl")
    run(
        control,
        "-D",
        str(data),
        "-l",
        str(folder / "log"),
        "-w",
        "-t",
        "200",
        "-o",
        options,
        "start",
    )
    try:
        rows = ",".join(
            f"('{r[0]}', {r[1]}, '{r[2]}', {bool(int(r[3]))}, "
            f"{'NULL' if r[4] == 'N/A' else r[4]}, {r[5]}, {r[6]}, '{{1,2}}')"
            for r in patients()
        )
        kinds = "id text, age double precision, sex text, smoker boolean, bmi numeric, " \
            'visits smallint, stroke integer, "Notes, long" integer[]'  # fmt: skip
        text = f"CREATE SCHEMA ward; CREATE TABLE ward.patients ({kinds}); " \
            f"INSERT INTO ward.patients VALUES {rows}; " \
            "UPDATE ward.patients SET bmi = 'NaN' WHERE bmi IS NULL; " \
            "CREATE FUNCTION ward.adds() RETURNS text LANGUAGE sql VOLATILE AS $$ " \
            "INSERT INTO ward.patients (id) VALUES ('x') RETURNING id $$"  # fmt: skip
        subprocess.run(
            [str(bin_folder / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "clinic",
             "-v", "ON_ERROR_STOP=1", "-q", "postgres"],
            input=text, text=True, check=True, timeout=1500,
            env={**os.environ, "PGPASSWORD": PASSWORD},
        )  # fmt: skip
        yield port
    finally:
        run(control, "-D", str(data), "-m", "immediate", "stop")


@pytest.fixture
def sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner's environment."""
    monkeypatch.setenv("PGUSER", "clinic")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


def study(house: House, port: int, source: str) -> None:
    house.study(
        source="FORMAT", change=(PATH, f"{{path: 'postgresql://127.0.0.1:{port}/postgres'}}")
    )
    file = house.folder / "small.yaml"
    text = file.read_text().replace("format: csvFORMAT", f"format: sql, {source}")
    file.write_text(text.replace("path: south.csv", "path: 'postgresql://localhost/south'"))


@pytest.mark.usefixtures("sign_in")
@pytest.mark.parametrize(
    "source",
    ["table: ward.patients", 'query: "SELECT * FROM ward.patients WHERE age > 0 -- all"'],
    ids=["table", "query"],
)
def test_it_reaches_the_same_silver_as_a_csv(
    house: House, sound: dict[str, Manifest], server: int, source: str
) -> None:
    study(house, server, source)
    collected = house.steps("r", "collect")
    assert (collected.figures["rows"], collected.figures["ignored"]) == (80, 1)
    assert collected.figures["columns"] == len(HEADER) + 1
    silver = house.steps("r", "validate").tables["silver"]
    assert by_patient(silver) == by_patient(sound["validate"].tables["silver"])


@pytest.mark.usefixtures("sign_in")
def test_nothing_is_written(house: House, server: int) -> None:
    study(house, server, 'query: "SELECT * FROM ward.patients WHERE id > ward.adds()"')
    with pytest.raises(DataError, match="it may read, and nothing else"):
        house.steps("r", "collect")


@pytest.mark.parametrize(
    ("name", "port", "source", "error", "message"),
    [
        ("nobody", 0, "table: ward.patients", DataError, "Set PGUSER and PGPASSWORD"),
        ("clinic", 0, "table: ward.absent", DataError, "SQLSTATE 42P01"),
        ("clinic", 0, 'query: "SELECT id FROM ward.patients"', DataError, "lacks columns age"),
        ("clinic", 1, "table: ward.patients", SourceAway, "does not answer"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_said(
    house: House, server: int, monkeypatch: pytest.MonkeyPatch,
    name: str, port: int, source: str, error: type[Exception], message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("PGUSER", name)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        study(house, closed.getsockname()[1] if port else server, source)
        with pytest.raises(error, match=message) as refused:
            house.steps("r", "collect")
    assert PASSWORD not in str(refused.value)


def test_a_password_in_an_address_is_refused(house: House) -> None:
    study(house, 5432, "table: a")
    file = house.folder / "small.yaml"
    file.write_text(file.read_text().replace("//127", "//me:word@127"))
    with pytest.raises(StudyError, match="without user, password or options") as refused:
        house.plan("r")
    assert "word@" not in str(refused.value)


def test_a_launched_step_gets_its_own_hospitals_user(tmp_path: Path) -> None:
    (tmp_path / "north.env").write_text("AWS_ACCESS_KEY_ID=a\nPGUSER=own\n")
    settings = Settings(home=tmp_path, credentials=str(tmp_path / "{owner}.env"))
    given = {"PGUSER": "another", "PGPASSWORD": "x", "PATH": "/bin"}
    found = step_environment(settings, "north", given)
    assert found["PGUSER"] == "own"
    assert "PGPASSWORD" not in found
    assert step_environment(Settings(home=tmp_path), "north", given)["PGPASSWORD"] == "x"
