"""The programs that build the images, and what the Dockerfile promises; no Docker needed."""

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

NAMES = ("airflow", "spark", "federation", "hospital", "mlflow", "worker")


def program(checkout: Path, name: str) -> ModuleType:
    """A program of ``images/``."""
    return load_script(checkout / "images" / f"{name}.py")


def stages(checkout: Path) -> dict[str, list[str]]:
    """The instructions of each stage of the Dockerfile, one a line; its FROM is the first."""
    text = (checkout / "images" / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: dict[str, list[str]] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.startswith("FROM "):
            own = found.setdefault(line.split(" AS ")[1], [])
        elif not found:
            assert line == "ARG BASE=python:3.11-slim-bookworm"
            continue
        own.append(line)
    return found


def above(stages: dict[str, list[str]], name: str) -> list[str]:
    """The stages that an image is made of, from the base on."""
    parent = stages[name][0].split()[1]
    return [*(above(stages, parent) if parent in stages else []), name]


def test_the_targets_are_the_images(checkout: Path) -> None:
    assert set(program(checkout, "build").NAMES) == set(NAMES) <= set(stages(checkout))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_keeps_the_house_s_rules(checkout: Path, name: str) -> None:
    found = stages(checkout)
    made_of = above(found, name)
    assert found[made_of[0]][0] == "FROM ${BASE} AS base"
    lines = [line for stage in made_of for line in found[stage]]
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]
    assert any(line.startswith("CMD [") for line in lines)
    assert not any(line.startswith("ADD ") for line in lines)
    assert f'org.opencontainers.image.title="fedrisk-{name}"' in found[name][-1]
    # What changes with a commit comes after all that is large.
    last = [line for line in found[name] if re.match("RUN|COPY", line)][-2:]
    assert last[0] == "COPY --from=project /share /opt/fedrisk/share"
    assert last[1].endswith(f"sh /run/project/project.sh fedrisk-{name}")
    for part, at in (("txt", "requirements.txt"), ("json", "lock.json")):
        assert f"source=/lock/{name}.{part},target=/run/{at}" in " ".join(lines)


def test_no_argument_changes_with_a_commit(checkout: Path) -> None:
    # A stage's arguments are part of each RUN below them, in the stages made of it too.
    lines = [line for stage in stages(checkout).values() for line in stage]
    assert {line for line in lines if line.startswith("ARG")} == {"ARG BASE"}


def test_packages_are_installed_by_their_hashes(checkout: Path) -> None:
    script = (checkout / "images" / "packages.sh").read_text(encoding="utf-8")
    assert "--no-deps --require-hashes" in script


def test_a_program_is_copied_with_what_it_imports_and_no_more(
    checkout: Path, tmp_path: Path
) -> None:
    package = tmp_path / "source" / "house"
    (package / "room").mkdir(parents=True)
    files = {
        "__init__": "", "other": "", "door": "from house.room.chair import SEAT",
        "room/__init__": "", "room/chair": "SEAT = ['python', '-m', 'house.window']",
        "window": "def look():\n    import house.room.lamp", "room/lamp": "", "room/bed": "",
    }  # fmt: skip
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    (tmp_path / "source" / "go.py").write_text("from house import door\nprint(door.SEAT[0])")
    copy = program(checkout, "imported")
    copy.main(tmp_path / "source", tmp_path / "source" / "go.py", tmp_path / "copy")
    found = {str(each.relative_to(tmp_path / "copy")) for each in tmp_path.glob("copy/**/*.py")}
    assert found == {"go.py"} | {f"house/{name}.py" for name in {*files} - {"other", "room/bed"}}
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import runpy, sys; sys.path[0:0] = ['.']; "
         "runpy.run_path('go.py')"],
        cwd=tmp_path / "copy", capture_output=True, text=True, timeout=400, check=True,
    )  # fmt: skip
    assert done.stdout == "python\n"


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
    end = time.monotonic() + 400
    while not (child.exists() and child.read_text().strip()) and time.monotonic() < end:
        time.sleep(0.05)
    started = int(child.read_text())
    process.send_signal(number)
    _, said = process.communicate(timeout=400)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert "Traceback" not in said
    assert not Path(f"/proc/{started}").exists()


def test_each_image_is_a_list_of_whole_extras_as_the_contract_says(checkout: Path) -> None:
    contract = (checkout / "docs" / "deployment.md").read_text(encoding="utf-8")
    exports = "\n".join(stages(checkout)["lock"])
    assert set(re.findall(r"--prune (\S+)", exports)) == {"triton"}
    for name in NAMES:
        part = re.search(rf"part {name} ((?:--extra \S+ *)+)", exports)
        row = re.search(rf"^\| `fedrisk-{name}` \| ([^|;]*)", contract, re.M)
        assert part is not None
        assert row is not None
        said = row.group(1).strip()
        extras = part.group(1).replace("--extra", "").split()
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
            {"metadata": {"component": {"name": "fedrisk", "version": "0.1.0"}}, "components": []}
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
