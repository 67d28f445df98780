"""Write the bill of materials of an image, while it is built.

The lock says what ought to be there (uv's CycloneDX export), the environment what is: the two must
agree, version by version, or the build ends. The interpreter with what its image installed beside
it, Debian's packages and the jars are added, for they are in no lock.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

Component = dict[str, Any]
INTERPRETER = "/usr/local/bin/python3"
"""What every image's environment is made of."""


def normal(name: str) -> str:
    """A distribution's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """Version of every distribution of this environment, by normal name."""
    return {normal(each.name): each.version for each in importlib.metadata.distributions()}


def python_components(lock: dict[str, Any], found: dict[str, str]) -> list[Component]:
    """The locked components that are installed, without the address of an index.

    Args:
        lock: uv's export of the image's part of the lock.
        found: What is installed.

    Raises:
        SystemExit: Something is installed that the lock does not have, or in another version.
    """
    locked = {normal(each["name"]): each for each in lock["components"]}
    project = lock["metadata"]["component"]
    locked[normal(project["name"])] = project
    faults = [
        f"{name} {version} is installed; the lock has "
        f"{locked[name]['version'] if name in locked else 'no such package'}"
        for name, version in sorted(found.items())
        if name not in locked or locked[name]["version"] != version
    ]
    if faults:
        sys.exit("\n".join(faults))
    kept = []
    for name, version in sorted(found.items()):
        hashes = [
            each
            for reference in locked[name].get("externalReferences", [])
            for each in reference.get("hashes", [])
        ]
        purl = f"pkg:pypi/{name}@{version}"
        kept.append(
            {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
            | ({"hashes": hashes[:1]} if len(hashes) == 1 else {})
        )
    return kept


def beside() -> list[tuple[str, str, str]]:
    """Name, version and folder of what the interpreter itself finds, outside this environment."""
    script = (
        "import importlib.metadata, json; print(json.dumps([[each.name, each.version, "
        "str(each.locate_file(''))] for each in importlib.metadata.distributions()]))"
    )
    told = subprocess.run(
        [INTERPRETER, "-I", "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    # A folder may be there by two names.
    return sorted(
        {
            (normal(n), v): (normal(n), v, folder) for n, v, folder in json.loads(told.stdout)
        }.values()
    )


def interpreter_components(found: list[tuple[str, str, str]]) -> list[Component]:
    """The interpreter, and the distributions that its image brings (pip, setuptools, wheel).

    Args:
        found: Those distributions; no step imports them.
    """
    version = platform.python_version()
    kept: list[Component] = [
        {
            "type": "application",
            "bom-ref": "cpython",
            "name": "cpython",
            "version": version,
            "purl": f"pkg:generic/cpython@{version}",
            "cpe": f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
        }
    ]
    for name, its, folder in found:
        purl = f"pkg:pypi/{name}@{its}"
        kept.append(
            {
                "type": "library",
                # The environment may have the same one.
                "bom-ref": f"{purl}#base",
                "name": name,
                "version": its,
                "purl": purl,
                "properties": [{"name": "fedrisk:folder", "value": folder}],
            }
        )
    return kept


def debian_components() -> list[Component]:
    """Debian's packages, as dpkg knows them."""
    told = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\n"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    kept = []
    for line in sorted(told.stdout.splitlines()):
        name, version, architecture = line.split("\t")
        purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}"
        kept.append(
            {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        )
    return kept


def jar_components(cache: Path) -> list[Component]:
    """The jars that were fetched for Spark; those of PySpark's wheel are part of the wheel.

    Args:
        cache: The image's cache folder.
    """
    kept = []
    for jar in sorted(cache.glob("fedrisk/jars-*/*.jar")):
        # Ivy's name of a jar: group_artifact-version.jar.
        parts = re.fullmatch(r"(?:([a-z0-9.]+)_)?(.+?)-(\d[^/]*)\.jar", jar.name)
        group, name, version = parts.groups() if parts else (None, jar.stem, "unknown")
        purl = f"pkg:maven/{group + '/' if group else ''}{name}@{version}"
        digest = hashlib.sha256(jar.read_bytes()).hexdigest()
        kept.append(
            {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
            | ({"group": group} if group else {})
            | {"hashes": [{"alg": "SHA-256", "content": digest}]}
        )
    return kept


def java_component(home: Path) -> list[Component]:
    """The Java runtime, where there is one."""
    release = home / "release"
    if not release.is_file():
        return []
    found = re.search(r'JAVA_VERSION="([^"]+)"', release.read_text(encoding="utf-8"))
    version = found.group(1) if found else "unknown"
    return [{"type": "library", "bom-ref": "openjdk", "name": "openjdk", "version": version}]


def main(lock: Path, target: Path, image: str) -> None:
    """Write the bill.

    Args:
        lock: uv's export.
        target: The file to make.
        image: The image's name.
    """
    given = json.loads(lock.read_text(encoding="utf-8"))
    project = given["metadata"]["component"]
    components = [
        *python_components(given, installed()),
        *interpreter_components(beside()),
        *jar_components(Path(sys.prefix) / "cache"),
        *java_component(Path("/opt/java")),
        *debian_components(),
    ]
    # No time and no serial number: the same content is the same file.
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": "image",
                "name": image,
                "version": project["version"],
            }
        },
        "components": components,
    }
    target.write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
