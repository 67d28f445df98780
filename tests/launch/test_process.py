"""The process launcher: exit codes, forwarded output, no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests_processes import runs

from smoke.waits import until
from tasks.errors import ExitCode, SettingsError
from tasks.launch.environment import step_environment
from tasks.launch.process import launch_step
from tasks.launch.process_tree import process_tree
from tasks.run.ending import error_message, read_endings
from tasks.run.folder import RunFolder
from tasks.settings import Settings

SLEEPER = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
print(child.pid, flush=True)
if "leave" in sys.argv:
    os._exit(0)
time.sleep(300)
"""
"""Starts a process in its own session; both ignore SIGTERM."""


@pytest.fixture
def settings(tmp_path: Path, checkout: Path) -> Settings:
    return Settings(home=tmp_path / "home", studies=checkout / "dags" / "studies")


def test_a_successful_step_has_code_0_and_its_output_is_forwarded(settings: Settings) -> None:
    lines: list[str] = []
    ending = launch_step("plan", study="stroke", run="a", settings=settings, emit=lines.append)
    assert (ending.code, ending.message) == (0, "")
    assert any("hospital-3" in line for line in lines)
    assert Path(ending.log).read_text().splitlines() == lines
    assert (settings.runs / "a" / "plan.json").exists()


def test_a_refused_step_keeps_its_exit_code_and_its_whole_message(settings: Settings) -> None:
    options = ["--set", "federation.rouds=3", "--set", "model.dropoud=1"]
    ending = launch_step("plan", study="stroke", run="b", settings=settings, options=options)
    assert ending.code == ExitCode.BAD_INPUT
    assert "federation.rouds" in ending.message
    assert "model.dropoud" in ending.message
    assert read_endings(RunFolder(settings.runs, "b")) == [ending]


def test_an_ending_replaces_that_of_an_earlier_try(settings: Settings) -> None:
    for source in ("/nowhere.csv", None):
        options = ["--source", source] if source else []
        launch_step("plan", study="stroke", run="c", settings=settings, options=options)
    assert [each.code for each in read_endings(RunFolder(settings.runs, "c"))] == [0]


SQLALCHEMY = """\
Traceback (most recent call last):
  File "base.py", line 1977, in _exec_single_context
    self.dialect.do_execute(
sqlite3.OperationalError: database is locked

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "default.py", line 1192, in do_execute
    cursor.execute(statement, parameters)
sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database is locked
[SQL:
CREATE TABLE secrets (
]
(Background on this error at: https://sqlalche.me/e/21/e3q8)"""


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            SQLALCHEMY,
            "sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database is locked",
        ),
        ("Traceback (most recent call last):\n  File\n\nKeyError: 'x'\n", "KeyError: 'x'"),
        (f"{SQLALCHEMY}\nerror: MLflow failed\nCheck it.", "MLflow failed\nCheck it."),
        ("  cut off\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("Traceback (most recent call last):\n  File", "no message"),
        ("", "no message"),
    ],
)
def test_a_failed_step_has_the_most_informative_line_as_message(output: str, message: str) -> None:
    assert error_message(output.splitlines()) == message


def test_a_step_over_its_deadline_is_terminated_and_reported(settings: Settings) -> None:
    ending = launch_step("plan", study="stroke", run="d", settings=settings, deadline=0.01)
    assert ending.code == ExitCode.FAILED
    assert "did not end within 0.01 s" in ending.message


@pytest.mark.skipif(sys.platform != "linux", reason="orphans come back on Linux only")
@pytest.mark.parametrize("how", ["stay", "leave"])
def test_a_grandchild_in_its_own_session_that_ignores_sigterm_is_ended(how: str) -> None:
    with process_tree() as start:
        process = start([sys.executable, "-c", SLEEPER, how], dict(os.environ))
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        assert runs(grandchild)
    until("both have ended", lambda: not runs(grandchild) and not runs(process.pid), 60)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a child on Linux only")
def test_a_step_ends_when_its_launcher_is_killed() -> None:
    code = (
        "import os, sys, time\nfrom tasks.launch.process import process_tree\n"
        "with process_tree() as start:\n"
        "    child = start([sys.executable, '-c', 'import time; time.sleep(300)'], os.environ)\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(300)\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    child = int(launcher.stdout.readline())
    launcher.send_signal(signal.SIGKILL)
    launcher.wait(400)
    until("it has ended", lambda: not runs(child), 60)


def test_a_hospitals_step_gets_its_own_lake_and_no_secret(settings: Settings) -> None:
    outer = {
        "PATH": "/bin",
        "AIRFLOW__CORE__FERNET_KEY": "secret",
        "AIRFLOW__API_AUTH__JWT_SECRET": "secret",
        "GITHUB_TOKEN": "secret",
    }
    split = settings.model_copy(update={"lake": "s3a://lake-{hospital}"})
    found = step_environment(split, "hospital-2", outer)
    assert found["FEDRISK_LAKE"] == "s3a://lake-hospital-2"
    assert "secret" not in found.values()
    assert found["PATH"] == "/bin"
    assert Settings.from_environment(found).table("hospital-2", "stroke", "gold") == (
        "s3a://lake-hospital-2/stroke/gold"
    )


def test_telemetry_of_libraries_is_disabled(settings: Settings) -> None:
    found = step_environment(settings, None, {})
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert found["GX_ANALYTICS_ENABLED"] == "false"


def test_a_step_gets_its_owners_key_and_no_other(settings: Settings, tmp_path: Path) -> None:
    for owner in ("a", "b", "consortium", "pool"):
        text = f"# made by init\nAWS_ACCESS_KEY_ID={owner}\nAWS_SECRET_ACCESS_KEY=s-{owner}\n"
        (tmp_path / f"{owner}.env").write_text(text)
    own = settings.model_copy(update={"credentials": str(tmp_path / "{owner}.env")})
    base = {"AWS_ACCESS_KEY_ID": "airflow", "AWS_SESSION_TOKEN": "t", "AWS_REGION": "r"}
    for hospital, owner in (("a", None), (None, "pool"), (None, None)):
        found = step_environment(own, hospital, base, owner=owner)
        expected = hospital or owner or "consortium"
        assert found["AWS_ACCESS_KEY_ID"] == expected
        assert found["AWS_SECRET_ACCESS_KEY"] == f"s-{expected}"
        assert found["AWS_REGION"] == "r"
        assert "AWS_SESSION_TOKEN" not in found
        assert "FEDRISK_CREDENTIALS" not in found


def test_missing_or_invalid_credentials_are_refused(settings: Settings, tmp_path: Path) -> None:
    own = settings.model_copy(update={"credentials": str(tmp_path / "{owner}.env")})
    with pytest.raises(SettingsError, match=r"c\.env cannot be read"):
        step_environment(own, "c", {})
    (tmp_path / "c.env").write_text("AWS_REGION=x\nPASSWORD=hunter2\n")
    with pytest.raises(SettingsError, match="line 2") as error:
        step_environment(own, "c", {})
    assert "hunter2" not in str(error.value)
