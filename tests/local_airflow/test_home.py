"""The embedded Airflow's folder and the studies that become DAGs."""

from __future__ import annotations

import configparser
import socket
from pathlib import Path

import pytest

from tasks.errors import StudyError
from tasks.local_airflow.home import AirflowHome, free_port
from tasks.run.known_studies import (
    find_known_study,
    register_study,
    sound_studies,
    study_faults,
    study_files,
)
from tasks.settings import Settings


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_secrets_are_readable_by_their_owner_only_and_do_not_change(settings: Settings) -> None:
    home = AirflowHome(settings)
    home.configure(8081, schedules=False)
    first = home.password()
    home.configure(8082, schedules=True)
    assert home.password() == first
    assert len(first) >= 12
    for name in ("password.json", "keys.json", "airflow.cfg"):
        assert mode(home.path / name) == 0o600, name


def test_two_homes_have_different_passwords(settings: Settings, tmp_path: Path) -> None:
    other = settings.model_copy(update={"home": tmp_path / "other"})
    assert AirflowHome(settings).password() != AirflowHome(other).password()


def test_the_configuration_has_the_port_and_listens_locally(settings: Settings) -> None:
    home = AirflowHome(settings)
    assert home.configure(8099, schedules=False) == "http://127.0.0.1:8099"
    found = configparser.RawConfigParser()
    found.read(home.path / "airflow.cfg")
    assert found["api"]["host"] == "127.0.0.1"
    assert found["core"]["execution_api_server_url"] == "http://127.0.0.1:8099/execution/"
    assert found["scheduler"]["use_job_schedule"] == "False"
    assert found["core"]["load_examples"] == "False"


def test_settings_of_another_airflow_are_ignored(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "internal")
    found = AirflowHome(settings).environment()
    assert "AIRFLOW__CORE__EXECUTOR" not in found
    assert found["AIRFLOW_HOME"] == str(settings.home / "airflow")
    assert found["no_proxy"] == "internal,127.0.0.1,localhost"
    assert Settings.from_environment(found) == settings


def test_a_port_in_use_is_skipped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        assert free_port(port) != port


def test_the_fingerprint_depends_on_every_study(settings: Settings, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    own = settings.model_copy(update={"studies": studies})
    (studies / "a.yaml").write_text("name: a")
    first = AirflowHome(own).fingerprint()
    assert AirflowHome(own).fingerprint() == first
    (studies / "a.yaml").write_text("name: b")
    assert AirflowHome(own).fingerprint() != first


def copy_of_heart(folder: Path, checkout: Path, name: str) -> Path:
    text = (checkout / "dags" / "studies" / "heart.yaml").read_text(encoding="utf-8")
    file = folder / "mine.yaml"
    file.write_text(text.replace("name: heart", f"name: {name}", 1), encoding="utf-8")
    return file


def test_a_users_study_is_registered_and_not_copied(
    settings: Settings, tmp_path: Path, checkout: Path
) -> None:
    file = copy_of_heart(tmp_path, checkout, "my-heart")
    register_study(file, "my-heart", settings)
    register_study(file, "my-heart", settings)
    assert study_files(settings)[-1] == file
    assert [study.name for _, study in sound_studies(settings, only="my-heart")] == ["my-heart"]
    assert find_known_study("my-heart", settings) == file


def test_a_users_study_may_not_take_a_known_name(
    settings: Settings, tmp_path: Path, checkout: Path
) -> None:
    file = copy_of_heart(tmp_path, checkout, "heart")
    with pytest.raises(StudyError, match="taken by"):
        register_study(file, "heart", settings)


def test_a_missing_study_file_is_reported_by_name(
    settings: Settings, tmp_path: Path, checkout: Path
) -> None:
    file = copy_of_heart(tmp_path, checkout, "my-heart")
    register_study(file, "my-heart", settings)
    file.unlink()
    assert len(study_faults(settings)) == 1
    assert str(file) in study_faults(settings)[0]
    assert {study.name for _, study in sound_studies(settings)} == {"heart", "stroke"}
