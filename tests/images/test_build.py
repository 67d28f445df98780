"""The programs that build the images, and what the Dockerfiles promise; no Docker needed."""

from __future__ import annotations

import http.server
import re
import threading
from pathlib import Path
from types import ModuleType

import pytest
from scripts import load_script

NAMES = ("airflow", "spark", "federation", "mlflow", "worker")


def program(checkout: Path, name: str) -> ModuleType:
    """A program of ``images/``."""
    return load_script(checkout / "images" / f"{name}.py")


def instructions(checkout: Path, name: str) -> list[str]:
    """The instructions of a Dockerfile, one a line."""
    text = (checkout / "images" / name / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_a_dockerfile_keeps_the_house_s_rules(checkout: Path, name: str) -> None:
    lines = instructions(checkout, name)
    assert lines[0] == "ARG BASE=python:3.11-slim-bookworm"
    assert {line.split()[1] for line in lines if line.startswith("FROM")} == {"${BASE}"}
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]
    assert sum(line.startswith("CMD [") for line in lines) == 1, "one process, no shell"
    assert not any(line.startswith("ADD ") for line in lines)
    # What changes with a commit comes after all that is large.
    assert lines[-3:-1] == ["ARG REVISION=unknown", "ARG VERSION=unknown"]
    assert "org.opencontainers.image.revision" in lines[-1]
    for line in lines:
        if " pip install" in line and "requirements.txt" in line:
            assert "--require-hashes" in line


def test_the_worker_installs_the_federation_s_part_word_for_word(checkout: Path) -> None:
    def first_layers(name: str, lock: str) -> list[str]:
        lines = instructions(checkout, name)
        start = max(i for i, line in enumerate(lines) if line == "FROM ${BASE}")
        own = [line.replace(f"from={lock},", "from=lock,") for line in lines[start : start + 4]]
        stage = lines.index(f"FROM ${{BASE}} AS {lock}")
        return own + [re.sub(" +", " ", line) for line in lines[stage + 1 : stage + 4]]

    assert first_layers("federation", "lock") == first_layers("worker", "federation-lock")


def test_network_settings_go_into_a_file_and_not_into_the_command(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = program(checkout, "build")
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("x")
    monkeypatch.setenv("HTTPS_PROXY", "http://someone:word's@proxy.example:3128")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://index.example/simple")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for a build")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    arguments = build.secrets(tmp_path)
    assert "example" not in " ".join(arguments)
    assert f"id=certificates,src={bundle}" in arguments
    written = (tmp_path / "network").read_text()
    assert "UV_DEFAULT_INDEX=https://index.example/simple" in written
    assert """HTTPS_PROXY='http://someone:word'"'"'s@proxy.example:3128'""" in written
    assert "AWS" not in written


def test_a_bill_is_refused_where_the_environment_is_not_the_lock(checkout: Path) -> None:
    bill = program(checkout, "sbom")
    lock = {
        "metadata": {"component": {"name": "fedrisk", "version": "0.1.0"}},
        "components": [{"name": "Foo_Bar", "version": "1.0"}, {"name": "other", "version": "2"}],
    }
    kept = bill.python_components(lock, {"fedrisk": "0.1.0", "foo-bar": "1.0"})
    assert [each["purl"] for each in kept] == ["pkg:pypi/fedrisk@0.1.0", "pkg:pypi/foo-bar@1.0"]
    with pytest.raises(SystemExit, match=r"foo-bar 1\.1 is installed; the lock has 1\.0"):
        bill.python_components(lock, {"fedrisk": "0.1.0", "foo-bar": "1.1"})
    with pytest.raises(SystemExit, match="stray 3 is installed; the lock has no such package"):
        bill.python_components(lock, {"fedrisk": "0.1.0", "stray": "3"})


def test_health_is_an_answer_a_port_or_a_file(checkout: Path, tmp_path: Path) -> None:
    health = program(checkout, "health")

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 500)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.server_port
        try:
            assert health.well(f"http://127.0.0.1:{port}/health")
            assert not health.well(f"http://127.0.0.1:{port}/else")
            assert health.well(f"127.0.0.1:{port}")
        finally:
            server.shutdown()
            thread.join(timeout=10)
    assert not health.well(f"127.0.0.1:{port}")
    ready = tmp_path / "ready"
    assert not health.well(str(ready))
    ready.touch()
    assert health.well(str(ready))
