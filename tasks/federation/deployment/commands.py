"""Command lines and environments of Flower's processes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import tasks
from tasks.federation.deployment.certificates import (
    Certificates,
)
from tasks.launch.environment import step_environment
from tasks.run.step import Context
from tasks.settings import PREFIX

APP = Path(tasks.__file__).parent / "federation" / "flower" / "app"
"""The Flower app that a run's bundle is made of."""


def copy_app(folder: Path) -> None:
    """Copy the Flower app, without the caches that importing it may have left beside it.

    Args:
        folder: Where to; it must not exist.
    """
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("__pycache__"))


def environment(context: Context, home: Path, hospital: str | None) -> dict[str, str]:
    """A process's environment: the system's variables and Flower's, no setting of ours.

    Args:
        context: The step's.
        home: Flower's home folder of this process alone.
        hospital: Whose process it is.
    """
    found = step_environment(context.settings, hospital)
    found = {key: value for key, value in found.items() if not key.startswith(PREFIX)}
    if hospital is None:
        # Only a hospital reads a table.
        found = {key: value for key, value in found.items() if not key.startswith("AWS_")}
    binaries, package = str(Path(sys.executable).parent), str(Path(tasks.__file__).parent.parent)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    return found | {
        "FLWR_HOME": str(home),
        "PATH": f"{binaries}:{found.get('PATH', '')}",
        "PYTHONPATH": ":".join(filter(None, [package, found.get("PYTHONPATH", "")])),
        # One hospital's batches are too small to share out, and threads do not survive a fork.
        "OMP_NUM_THREADS": "1",
    }


def superlink_arguments(files: Certificates, host: str) -> list[str]:
    """Arguments of Flower's SuperLink: TLS and node keys on, nothing fetched at run time.

    Args:
        files: Its certificates.
        host: The address that it binds.
    """
    return [
        *("--ssl-ca-certfile", str(files.authority), "--ssl-certfile", str(files.certificate)),
        *("--ssl-keyfile", str(files.key), "--enable-supernode-auth", "--host", host),
        "--disable-runtime-dependency-installation",
    ]
