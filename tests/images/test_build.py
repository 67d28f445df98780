"""The programs that build the images, and what the Dockerfiles promise; no Docker needed."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
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
    assert lines[-4:-1] == ["ARG BASE", "ARG REVISION=unknown", "ARG VERSION=unknown"]
    assert "org.opencontainers.image.revision" in lines[-1]
    assert 'org.opencontainers.image.base.name="${BASE}"' in lines[-1]
    last = [line for line in lines if line.startswith("RUN")][-1]
    # COPY keeps the modes of a checkout, and under umask 077 nobody else may read that.
    assert "chmod -R a+rX /opt/fedrisk/share" in last
    assert f"/opt/fedrisk/sbom.json fedrisk-{name} " in last
    for line in lines:
        if " pip install" in line and "requirements.txt" in line:
            assert "--require-hashes" in line


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("stage", ["FROM ${BASE} AS uv", "FROM ${BASE} AS wheel", "FROM ${BASE}"])
def test_what_images_have_in_common_is_the_same_in_each(
    checkout: Path, name: str, stage: str
) -> None:
    def beginning(image: str) -> list[str]:
        lines = instructions(checkout, image)
        start = lines.index(stage)
        # The last stage goes its own way after the user and the environment.
        if stage == "FROM ${BASE}":
            return lines[start : start + 3]
        after = (i for i, line in enumerate(lines) if i > start and line.startswith("FROM"))
        return lines[start : next(after)]

    # Each Dockerfile builds alone, and the engine builds what is the same in all of them once.
    assert beginning(name) == beginning(NAMES[0])


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


def test_an_index_that_only_pip_knows_reaches_the_build(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = program(checkout, "build")
    for name in [each for each in os.environ if re.match("(PIP|UV)_", each)]:
        monkeypatch.delenv(name)
    settings = tmp_path / ".config" / "pip" / "pip.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text("[global]\nindex-url = https://only-pip.example/simple\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    build.secrets(tmp_path)
    assert "PIP_INDEX_URL=https://only-pip.example/simple" in (tmp_path / "network").read_text()
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://of-uv.example/simple")
    build.secrets(tmp_path)
    assert "only-pip" not in (tmp_path / "network").read_text(), "the environment goes first"


def a_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a Docker on the path that does what a shell script says."""
    (folder / "bin").mkdir()
    (folder / "bin" / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("version", "buildx", "fine"),
    [("28.2.2", 1, False), ("23.0.0", 1, False), ("28.2.2", 0, True), ("20.10.24+dfsg1", 1, True)],
)
def test_a_docker_that_cannot_build_is_told_apart_first(
    checkout: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    buildx: int,
    fine: bool,
) -> None:
    build = program(checkout, "build")
    script = f'case "$1" in version) echo {version};; buildx) exit {buildx};; esac'
    a_docker(tmp_path, monkeypatch, script)
    if fine:
        build.check_builder()
    else:
        with pytest.raises(SystemExit, match="docker-buildx-plugin"):
            build.check_builder()


def test_what_docker_says_of_a_failure_is_passed_on(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = program(checkout, "build")
    a_docker(tmp_path, monkeypatch, "echo no space left on device >&2; exit 1")
    with pytest.raises(SystemExit, match="docker image ls: no space left on device"):
        build.output("docker", "image", "ls")
    with pytest.raises(SystemExit, match="No such file or directory"):
        build.output("docker-that-is-not-there")


def test_the_bases_digest_is_told_where_it_is_known(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = program(checkout, "build")
    label = "org.opencontainers.image.base.digest"
    assert build.base_labels("python@sha256:ab") == ["--label", f"{label}=sha256:ab"]
    a_docker(tmp_path, monkeypatch, """echo '["mirror/python@sha256:x","python@sha256:ab"]'""")
    assert build.base_labels("python:3.11-slim-bookworm") == ["--label", f"{label}=sha256:ab"]
    assert build.base_labels("registry.example:5000/python:3.11") == []
    (tmp_path / "bin" / "docker").write_text("#!/bin/sh\necho '[]'\n")
    assert build.base_labels("python:3.11-slim-bookworm") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_interrupted_ends_with_all_that_it_started(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    child = tmp_path / "child"
    (tmp_path / "work").write_text(f"echo $$ >{child}\nexec sleep 300\n")
    builds = f'case "$1" in version) echo 28.0;; build) sh {tmp_path / "work"};; esac'
    a_docker(tmp_path, monkeypatch, builds)
    process = subprocess.Popen(
        [sys.executable, str(checkout / "images" / "build.py"), "mlflow"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 180
    while not (child.exists() and child.read_text().strip()) and time.monotonic() < end:
        time.sleep(0.05)
    started = int(child.read_text())
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert "Traceback" not in said
    assert not Path(f"/proc/{started}").exists()


def test_each_image_is_a_list_of_whole_extras_as_the_contract_says(checkout: Path) -> None:
    contract = (checkout / "docs" / "deployment.md").read_text(encoding="utf-8")
    for name in NAMES:
        text = "\n".join(instructions(checkout, name))
        parts = re.findall(r'part="(.*?)"', text)
        assert set(re.findall(r"--prune (\S+)", " ".join(parts))) <= {"triton"}
        extras = re.findall(r"--extra (\S+)", parts[-1])
        row = re.search(rf"^\| `fedrisk-{name}` \| ([^|;]*)", contract, re.M)
        assert row is not None
        said = row.group(1).strip()
        assert extras == (["all"] if said == "all of them" else said.split(", ")), name


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


def test_a_bill_names_the_image_the_interpreter_and_what_the_base_brings(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bill = program(checkout, "sbom")
    told = [["Pip_X", "24.0", "/one"], ["Pip_X", "24.0", "/the-same"]]
    interpreter = tmp_path / "python3"
    interpreter.write_text(f"#!/bin/sh\necho '{json.dumps(told)}'\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(bill, "INTERPRETER", str(interpreter))
    monkeypatch.setattr(bill, "installed", lambda: {"fedrisk": "0.1.0"})
    monkeypatch.setattr(bill, "debian_components", list)
    (tmp_path / "lock.json").write_text(
        json.dumps(
            {
                "metadata": {"component": {"name": "fedrisk", "version": "0.1.0"}},
                "components": [],
            }
        )
    )
    bill.main(tmp_path / "lock.json", tmp_path / "bill.json", "fedrisk-spark")
    found = json.loads((tmp_path / "bill.json").read_text())
    assert found["metadata"]["component"]["name"] == "fedrisk-spark"
    python = ".".join(map(str, sys.version_info[:3]))
    parts = {(each["name"], each["version"]) for each in found["components"]}
    assert parts == {("fedrisk", "0.1.0"), ("cpython", python), ("pip-x", "24.0")}


def test_health_asks_no_proxy(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    health = program(checkout, "health")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert health.well(f"http://127.0.0.1:{server.server_port}/health")
        finally:
            server.shutdown()
            thread.join(timeout=10)


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
