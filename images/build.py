"""Build the images with plain ``docker build``: ``python images/build.py [NAME...]``.

Each image gets two tags: ``fedrisk-NAME:<git revision>`` (with ``-dirty`` where what goes into it
is not committed) and ``fedrisk-NAME:dev``, the last one built. Package index, proxy and
certificates of the environment reach the build as secrets, so no image knows them. A table of the
images ends the output; their bills of materials are in ``dist/sbom``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("airflow", "spark", "federation", "mlflow", "worker")
"""In the order of building: the worker shares the federation's largest layer."""
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


def output(*command: str) -> str:
    """What a short command says.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()


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
    lines = [
        f"{key}={shlex.quote(value)}" for key, value in os.environ.items() if NETWORK.fullmatch(key)
    ]
    network.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")
    found = ["--secret", f"id=network,src={network}"]
    bundle = next((os.environ[key] for key in CERTIFICATES if os.environ.get(key)), "")
    if bundle and Path(bundle).is_file():
        found += ["--secret", f"id=certificates,src={bundle}"]
    return found


def build(name: str, tag: str, version: str) -> float:
    """Build one image.

    Args:
        name: A folder beside this file.
        tag: The git revision.
        version: The project's.

    Returns:
        Seconds that it took.

    Raises:
        SystemExit: Docker could not build it, or not within the deadline.
    """
    base = os.environ.get("BASE")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = ["docker", "build", "--file", f"images/{name}/Dockerfile", *secrets(Path(folder))]
        command += ["--build-arg", f"BASE={base}"] if base else []
        command += ["--build-arg", f"REVISION={tag}", "--build-arg", f"VERSION={version}"]
        command += ["--tag", f"fedrisk-{name}:{tag}", "--tag", f"fedrisk-{name}:dev", "."]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"},
                check=False,
                timeout=DEADLINE,
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"fedrisk-{name} was not built within {DEADLINE:.0f} s")
    if done.returncode != 0:
        sys.exit(f"fedrisk-{name} was not built: docker's reason is above")
    return time.monotonic() - started


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
    main(sys.argv[1:])
