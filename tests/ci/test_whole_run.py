"""`.ci/run` as CI calls it, in a checkout whose stages only say that they ran."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from fedrisk_ci.plan import PLATFORM
from tests_processes import runs

from smoke.waits import until

TARGETS = "environment setup lint images test-fast test-slow test-stack test-platform"


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@dataclass(frozen=True)
class Machine:
    """A machine with a checkout, and an engine and a cluster that can be started.

    Attributes:
        folder: Where all of it is.
    """

    folder: Path

    @property
    def checkout(self) -> Path:
        """The checkout."""
        return self.folder / "checkout"

    def git(self, *arguments: str) -> None:
        """Run git in the checkout."""
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *who, *arguments], cwd=self.checkout, check=True, timeout=60)

    def start(self, *stages: str, **variables: str) -> subprocess.Popen[str]:
        """Start CI."""
        path = f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        here = {"PATH": path, "CALLED": str(self.folder / "called")}
        return subprocess.Popen(
            ["bash", ".ci/run", *stages],
            cwd=self.checkout,
            env={**os.environ, **here, "XDG_CACHE_HOME": str(self.folder / "cache"), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *stages: str, **variables: str) -> tuple[int, str, list[str]]:
        """Run CI; its exit code, what it said, and what was called, in that order."""
        log = self.folder / "called"
        log.unlink(missing_ok=True)
        process = self.start(*stages, **variables)
        said = process.communicate(timeout=300)[0]
        return process.returncode, said, log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def machine(tmp_path: Path, checkout: Path) -> Machine:
    """A new machine."""
    made = Machine(tmp_path)
    shutil.copytree(checkout / ".ci", made.checkout / ".ci")
    (made.checkout / "Makefile").write_text(
        f".PHONY: {TARGETS}\n{TARGETS}:\n"
        '\t@echo "$@" >>$(CALLED); echo "this is $@"\n'
        '\t@test "$(HANGS)" != "$@" || { setsid sleep 600 & echo $$! >$(CALLED).pid; sleep 600; }\n'
        '\t@test "$(FAILS)" != "$@"\n'
    )
    (made.checkout / "tests").mkdir()
    (made.checkout / "tests" / "kubernetes_cluster.py").write_text(
        "import os\nopen(os.environ['CALLED'], 'a').write('cluster up\\n')\n"
    )
    (made.checkout / "uv.lock").touch()
    (made.checkout / ".venv" / "bin").mkdir(parents=True)
    (made.checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    shared, up = tmp_path / "shared", tmp_path / "engine-is-up"
    script(shared / "docker" / "engine-up", f"echo engine up >>$CALLED; touch {up}")
    script(shared / "docker" / "engine-down", f"echo engine down >>$CALLED; rm {up}")
    script(shared / "docker" / "base-images", "")
    script(shared / "cluster" / "setup", "")
    script(shared / "cluster" / "cluster-down", "echo cluster down >>$CALLED")
    script(tmp_path / "bin" / "docker", f"test -e {up}")
    for name in ("chromium", "curl"):
        # Not to be installed on the machine of this test.
        script(tmp_path / "bin" / name, "")
    made.git("init", "-q")
    made.git("add", ".ci", "Makefile", "tests", "uv.lock")
    made.git("commit", "-qm", "first")
    return made


def test_all_stages_run_and_what_was_started_ends(machine: Machine) -> None:
    code, said, called = machine.run()
    assert code == 0, said
    order = [each for each in called if each != "test-slow"]
    checks = [order.index(each) for each in ("setup", "lint", "test-fast")]
    assert order.index("environment") < min(checks)
    assert max(checks) < order.index("test-stack")
    assert order.index("images") < order.index("cluster up") < order.index("test-stack")
    ends = ["test-stack"] * 3 + ["test-platform"] * 3 + ["cluster down", "engine down"]
    assert order[-8:] == ends
    assert called.count("test-slow") == 3
    assert "background work: " in said
    assert {"lint", "whole-run"} <= {line.split()[0] for line in table(said)}
    assert {line.split()[2] for line in table(said)[1:]} == {"-"}


def test_the_next_run_is_compared_and_skips_the_platform_until_a_file_of_it_changes(
    machine: Machine,
) -> None:
    machine.run()
    # This engine is not of the run, so it stays.
    (machine.folder / "engine-is-up").touch()
    code, said, called = machine.run()
    assert code == 0
    assert not {"test-platform", "engine down"} & set(called)
    assert "platform-cluster: skipped: passed with this key" in said
    assert "-" not in {line.split()[2] for line in table(said) if "lint" in line}
    assert "test-platform" in machine.run(*PLATFORM, CI_FULL="1")[2]
    (machine.checkout / "uv.lock").write_text("other")
    machine.git("commit", "-qam", "second")
    assert "test-platform" in machine.run(*PLATFORM)[2]


def table(said: str) -> list[str]:
    """The lines of the table of stages."""
    return said[said.index("=== times") :].partition("\n\n")[0].splitlines()[1:]


@pytest.mark.parametrize(
    ("fails", "not_run"),
    [
        ("test-fast", {"test-slow", "test-stack", "test-platform"}),
        ("test-platform", set()),
    ],
)
def test_a_failed_stage_fails_the_run_and_keeps_what_needs_it_from_running(
    machine: Machine, fails: str, not_run: set[str]
) -> None:
    code, said, called = machine.run(FAILS=fails)
    assert code == 1
    assert "CI FAILED (1)" in said
    assert f"this is {fails}" in said[said.index("=== times") :]
    assert not not_run & set(called)
    assert called[-1] == "engine down"
    # Tried twice, and never recorded.
    assert called.count("test-platform") == (6 if fails == "test-platform" else 0)
    assert not (machine.folder / "cache" / "fedrisk" / "ci" / "platform.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_nothing_and_shows_its_table(machine: Machine, number: int) -> None:
    pid = machine.folder / "called.pid"
    process = machine.start(HANGS="test-slow")
    until("a stage hangs", lambda: pid.exists() and pid.read_text().strip(), 120)
    process.send_signal(number)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 128 + number
    assert any(f"stopped: {signal.Signals(number).name}" in line for line in table(said))
    assert not runs(int(pid.read_text()))
    assert (machine.folder / "called").read_text().endswith("cluster down\nengine down\n")


def test_stages_can_be_named(machine: Machine) -> None:
    code, _, called = machine.run("lint", "platform-cluster")
    assert (code, called) == (0, ["lint", "test-platform"])
    # A part is nothing to compare a whole run with.
    assert not (machine.folder / "cache" / "fedrisk" / "ci" / "runs.jsonl").exists()
    code, said, called = machine.run("lnit")
    assert (code, called) == (2, [])
    assert "lint" in said
