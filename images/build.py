"""Build the images with plain ``docker build``: ``python images/build.py [NAME...]``.

Each image gets two tags: ``fedrisk-NAME:<git revision>`` (with ``-dirty`` where what goes into it
is not committed) and ``fedrisk-NAME:dev``, the last one built. Package index, proxy and
certificates of the environment reach the build as secrets, so no image knows them. A table of the
images ends the output; their bills of materials are in ``dist/sbom``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("airflow", "spark", "federation", "hospital", "mlflow", "worker")
"""The Dockerfile's targets, in the order of building."""
CONTENT = (
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "uv.lock",
    "dags",
    "images",
    "plugins",
    "tasks",
)
"""What goes into an image; other changes make no image dirty."""
NETWORK = re.compile(
    r"(?i:(https?|no|all|ftp)_proxy)|PIP_(INDEX_URL|EXTRA_INDEX_URL|DEFAULT_TIMEOUT|RETRIES)"
    r"|UV_(DEFAULT_INDEX|INDEX|HTTP_TIMEOUT|HTTP_RETRIES)|DEFAULT_ARTIFACT_REPOSITORY"
)
"""Variables that the build is given."""
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
DEADLINE = 3600.0
"""Seconds after which building one image is given up."""
GRACE = 10.0
"""Seconds that a build has to end in order once it is interrupted."""
BASE = "python:3.11-slim-bookworm"
"""The Dockerfile's own, where the environment names no other."""


def output(*command: str) -> str:
    """What a short command says.

    Raises:
        SystemExit: It is not there, failed or did not answer; the message has its reason.
    """
    said = " ".join(command)
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )
    except OSError as error:
        sys.exit(f"{said}: {error.strerror} ({command[0]})")
    except subprocess.TimeoutExpired:
        sys.exit(f"{said}: no answer within 120 s")
    if done.returncode != 0:
        sys.exit(f"{said}: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout.strip()


def check_builder() -> None:
    """See that this Docker can build: the legacy builder has not what the Dockerfile needs.

    Raises:
        SystemExit: It cannot; the message says what to install.
    """
    version = output("docker", "version", "--format", "{{.Client.Version}}")
    major = re.match(r"\d+", version)
    # Before, BuildKit was part of the engine and of its command.
    if major is None or int(major.group()) < 23:
        return
    found = subprocess.run(
        ["docker", "buildx", "version"], capture_output=True, timeout=60, check=False
    )
    if found.returncode != 0:
        sys.exit(
            f"Docker {version} builds with its component buildx, which is not there. It is the "
            "package docker-buildx-plugin of Docker's own packages, and docker-buildx of Debian "
            "or Ubuntu beside docker.io."
        )


def pip_index() -> str:
    """The package index that only this machine's pip knows (``pip.conf``); empty if none."""
    # An environment made by uv has no pip; the Python that it was made of has.
    for python in (sys.executable, f"{sys.base_prefix}/bin/python3", shutil.which("python3")):
        if not python or not Path(python).exists():
            continue
        asked = [python, "-m", "pip", "config", "get", "global.index-url"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode == 0 and done.stdout.strip():
                return done.stdout.strip()
    return ""


def base_labels(base: str) -> list[str]:
    """Arguments that label an image with its base's digest, where that is known.

    Args:
        base: The base's name, or name and digest.
    """
    name, _, digest = base.partition("@")
    if not digest:
        form = ["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", base]
        done = subprocess.run(form, capture_output=True, text=True, timeout=60, check=False)
        # Of one repository each; a base that was only loaded or built here has none.
        known = json.loads(done.stdout or "null") if done.returncode == 0 else None
        short = name.rpartition("/")[0] + "/" + name.rpartition("/")[2].partition(":")[0]
        digests = dict(each.split("@", 1) for each in known or [] if "@" in each)
        digest = digests.get(short.lstrip("/"), "")
    return ["--label", f"org.opencontainers.image.base.digest={digest}"] if digest else []


def revision() -> str:
    """The commit, and whether what goes into the images differs from it."""
    changed = output("git", "status", "--porcelain", "--", *CONTENT, ".dockerignore")
    return output("git", "rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")


def secrets(folder: Path) -> list[str]:
    """Arguments that hand the environment's network settings to the build.

    Args:
        folder: A folder of this user alone, for as long as the build takes.
    """
    network = folder / "network"
    found = {key: value for key, value in os.environ.items() if NETWORK.fullmatch(key)}
    if not found.get("UV_DEFAULT_INDEX") and not found.get("PIP_INDEX_URL") and (at := pip_index()):
        found["PIP_INDEX_URL"] = at
    lines = [f"{key}={shlex.quote(value)}" for key, value in found.items()]
    network.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")
    arguments = ["--secret", f"id=network,src={network}"]
    bundle = next((os.environ[key] for key in CERTIFICATES if os.environ.get(key)), "")
    if bundle and Path(bundle).is_file():
        arguments += ["--secret", f"id=certificates,src={bundle}"]
    return arguments


def build(name: str, tag: str, version: str) -> float:
    """Build one image.

    Args:
        name: A target of the Dockerfile.
        tag: The git revision.
        version: The project's.

    Returns:
        Seconds that it took.

    Raises:
        SystemExit: Docker could not build it, or not within the deadline.
    """
    base = os.environ.get("BASE")
    labels = base_labels(base or BASE)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = ["docker", "build", "--file", "images/Dockerfile", "--target", name]
        command += secrets(Path(folder))
        command += ["--build-arg", f"BASE={base}"] if base else []
        for label, value in (("version", version), ("revision", tag)):
            command += ["--label", f"org.opencontainers.image.{label}={value}"]
        command += [*labels, "--tag", f"fedrisk-{name}:{tag}", "--tag", f"fedrisk-{name}:dev", "."]
        try:
            code = run(command, DEADLINE)
        except subprocess.TimeoutExpired:
            sys.exit(f"fedrisk-{name} was not built within {DEADLINE:.0f} s")
    if code != 0:
        sys.exit(f"fedrisk-{name} was not built: docker's reason is above")
    return time.monotonic() - started


def run(command: list[str], deadline: float) -> int:
    """Run a build to its end, or end it with all that it has started.

    Args:
        command: The build.
        deadline: Seconds.

    Returns:
        Its exit code.

    Raises:
        subprocess.TimeoutExpired: It did not end in time.
    """
    # Docker's command is a launcher of its components, which would go on without it.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"},
        start_new_session=True,
    )
    try:
        return process.wait(deadline)
    except BaseException:
        for number in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        raise


def export_bill(name: str, tag: str) -> int:
    """Copy an image's bill of materials to ``dist/sbom``.

    Args:
        name: The image.
        tag: Its tag.

    Returns:
        Number of components.
    """
    target = ROOT / "dist" / "sbom" / f"fedrisk-{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    container = output("docker", "create", "--network", "none", f"fedrisk-{name}:{tag}", "true")
    try:
        output("docker", "cp", f"{container}:/opt/fedrisk/sbom.json", str(target))
    finally:
        output("docker", "rm", "--force", container)
    return len(json.loads(target.read_text(encoding="utf-8"))["components"])


def main(names: list[str]) -> None:
    """Build the named images, or all.

    Args:
        names: Some of ``NAMES``.

    Raises:
        SystemExit: There is no such image, or Docker failed.
    """
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        sys.exit(f"no image named {', '.join(unknown)}; there are {', '.join(NAMES)}")
    check_builder()
    tag = revision()
    found = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    rows = []
    for name in [each for each in NAMES if each in names or not names]:
        seconds = build(name, tag, found.group(1) if found else "unknown")
        components = export_bill(name, tag)
        size = int(output("docker", "image", "inspect", "-f", "{{.Size}}", f"fedrisk-{name}:{tag}"))
        rows.append(
            (f"fedrisk-{name}", tag, f"{size / 1e6:,.0f} MB", f"{components}", f"{seconds:.0f} s")
        )
    heads = ("image", "tag (and dev)", "size", "parts", "built in")
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


if __name__ == "__main__":
    # As Ctrl-C does, so that a build that runs is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
