"""The one place where command lines and environments of Flower's processes are built."""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tasks
from tasks.federation.deployment.certificates import Certificates, write_private
from tasks.launch.environment import QUIET, step_environment
from tasks.settings import PREFIX, Settings

APP = Path(tasks.__file__).parent / "federation" / "flower" / "app"
"""The Flower app that a run's bundle is made of."""


def copy_app(folder: Path) -> None:
    """Copy the Flower app, without the caches that importing it may have left beside it.

    Args:
        folder: Where to; it must not exist.
    """
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("__pycache__"))


def run_environment(settings: Settings, home: Path, hospital: str | None) -> dict[str, str]:
    """Environment of a process of one run: the system's variables and Flower's, no setting of ours.

    Args:
        settings: Whose credentials the process gets.
        home: Flower's home folder of this process alone.
        hospital: Whose process it is; only a hospital reads a table.
    """
    found = step_environment(settings, hospital)
    hidden = (PREFIX,) if hospital else (PREFIX, "AWS_")
    return flower_environment(found, home, hidden)


def flower_environment(
    source: Mapping[str, str], home: Path, hidden: tuple[str, ...] = ()
) -> dict[str, str]:
    """Environment of a process of Flower's.

    Args:
        source: The variables to start from.
        home: Flower's home folder of this process alone; made if absent.
        hidden: Beginnings of variables that the process shall not see.
    """
    found = {key: value for key, value in source.items() if not key.startswith(hidden or "\0")}
    binaries, package = str(Path(sys.executable).parent), str(Path(tasks.__file__).parent.parent)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    return {
        **found,
        **QUIET,
        "FLWR_HOME": str(home),
        "PATH": f"{binaries}:{found.get('PATH', '')}",
        "PYTHONPATH": ":".join(filter(None, [package, found.get("PYTHONPATH", "")])),
        "PYTHONUNBUFFERED": "1",
        # One hospital's batches are too small to share out, and threads do not survive a fork.
        "OMP_NUM_THREADS": "1",
    }


def superlink_command(
    files: Certificates, host: str, port: int, secret: Path, *, warm: bool, standing: bool = False
) -> list[str]:
    """Command of a SuperLink: TLS and node keys on, nothing fetched at run time.

    Args:
        files: Its certificates.
        host: The address that it binds.
        port: The port.
        secret: File for the secret that it shares with its SuperExec; made here.
        warm: Whether ServerApps fork from it.
        standing: Whether it outlives a failed ServerApp.
    """
    flower = [
        *("--ssl-ca-certfile", str(files.authority), "--ssl-certfile", str(files.certificate)),
        *("--ssl-keyfile", str(files.key), "--enable-supernode-auth", "--host", host),
        "--disable-runtime-dependency-installation",
    ]
    if not warm:
        return ["flower-superlink", "--isolation", "subprocess", "--port", str(port), *flower]
    ours = ["--authority", str(files.authority), *(["--standing"] if standing else [])]
    return [*_warm("superlink", port, secret), *ours, "--", *flower]


@dataclass(frozen=True)
class SuperNodeFiles:
    """What a hospital's SuperNode is started with.

    Attributes:
        hospital: Whose it is.
        superlink: The SuperLink's ``host:port``.
        authority: Certificate to verify that with.
        key: The hospital's private key.
        config: The hospital's configuration of one run, or the word for any run it has joined.
    """

    hospital: str
    superlink: str
    authority: Path
    key: Path
    config: Path | str


def supernode_command(
    files: SuperNodeFiles, port: int, secret: Path, *, warm: bool, after: Path | None = None
) -> list[str]:
    """Command of a hospital's SuperNode.

    Args:
        files: What it is started with.
        port: Of its own API, on this machine alone.
        secret: File for the secret that it shares with its SuperExec; made here.
        warm: Whether ClientApps fork from it.
        after: File that it waits for before it joins.
    """
    flower = [
        *("--superlink", files.superlink, "--root-certificates", str(files.authority)),
        *("--auth-supernode-private-key", str(files.key)),
        *("--node-config", f'hospital="{files.hospital}" config="{files.config}"'),
        # A SuperNode whose SuperLink is gone must not try without end.
        *("--max-retries", "20", "--max-wait-time", "60"),
    ]
    if not warm:
        return ["flower-supernode", "--port", str(port), *flower]
    ours = ["--hospital", files.hospital]
    ours += ["--config", str(files.config)] if isinstance(files.config, Path) else []
    ours += ["--after", str(after)] if after else []
    return [*_warm("supernode", port, secret), *ours, "--", *flower]


def control_command(request: Path) -> list[str]:
    """Command that registers a run's keys and starts it (``flower/control_cli.py``).

    Args:
        request: The file that says what to do.
    """
    return [sys.executable, "-m", "tasks.federation.flower.control_cli", str(request)]


def _warm(role: str, port: int, secret: Path) -> list[str]:
    secret.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(secret, secrets.token_bytes(32))
    module = [sys.executable, "-m", "tasks.federation.flower.warm_executor", role]
    return [*module, "--port", str(port), "--secret", str(secret)]
