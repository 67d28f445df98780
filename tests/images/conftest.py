"""The built images, once for all tests, and a way to run something in one."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

NAMES = ("airflow", "spark", "federation", "hospital", "mlflow", "worker")
BUILD_DEADLINE, RUN_DEADLINE = 3000, 1200


def _docker(*arguments: str, deadline: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the docker client."""
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=deadline, check=False
    )


@pytest.fixture(scope="session")
def docker() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The docker client."""
    return _docker


@pytest.fixture(scope="session")
def images(checkout: Path) -> dict[str, str]:
    """Every image, by role: those of this checkout, built now, or those of the tag IMAGES_TAG."""
    if shutil.which("docker") is None or _docker("version").returncode != 0:
        reason = "no Docker engine answers"
        if os.environ.get("REQUIRE_SHARED_DATA") == "1":
            pytest.fail(f"this must not be skipped here: {reason}")
        pytest.skip(reason)
    tag = os.environ.get("IMAGES_TAG", "")
    if not tag:
        tag = "dev"
        built = subprocess.run(
            [sys.executable, "images/build.py"],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=BUILD_DEADLINE,
            check=False,
        )
        assert built.returncode == 0, (built.stdout + built.stderr)[-4000:]
    return {name: f"fedrisk-{name}:{tag}" for name in NAMES}


@pytest.fixture(scope="session")
def inside(images: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python, given on standard input, or a command as a pod or a stack would at its worst.

    Nothing is writable but two folders in memory, which hold no programs, and there is no network.
    """

    def run(name: str, code: str, *command: str) -> subprocess.CompletedProcess[str]:
        container = f"fedrisk-test-{secrets.token_hex(6)}"
        limits = ["--read-only", "--tmpfs", "/tmp", "--tmpfs", "/var/lib/fedrisk"]
        limits += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        limits += ["--network", "none", "--hostname", "localhost"]
        try:
            return subprocess.run(
                [
                    *("docker", "run", "--rm", "--interactive", "--name", container),
                    *(*limits, images[name], *(command or ("python", "-"))),
                ],
                input=code,
                capture_output=True,
                text=True,
                timeout=RUN_DEADLINE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            _docker("rm", "--force", container)
            raise

    return run
