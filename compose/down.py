"""Remove all that is of a compose project: ``python compose/down.py [PROJECT...]``.

By the label that Compose puts on everything, so it needs none of the files, overrides and variables
with which the project was started; ``docker compose down`` removes only what the files that it is
given name. Without an argument it is the project of this checkout, as ``.env`` and the environment
name it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LABEL = "com.docker.compose.project"
DEADLINE = 120.0
"""Seconds that one command of Docker may take; there are at most six and two a network."""


class DownError(Exception):
    """Docker refused, or did not answer in time."""


def docker(*arguments: str) -> str:
    """What a command of Docker says.

    Raises:
        DownError: It failed; the message has its reason.
    """
    said = f"docker {' '.join(arguments)[:100]}"
    try:
        done = subprocess.run(
            ["docker", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    except OSError as error:
        raise DownError(f"{said}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise DownError(f"{said}: no answer within {DEADLINE:.0f} s") from None
    if done.returncode != 0:
        raise DownError(f"{said}: {done.stderr.strip()[-1000:]}")
    return done.stdout


def this_project() -> str:
    """The name under which ``docker compose up`` in this checkout starts the stack."""
    return str(json.loads(docker("compose", "config", "--format", "json"))["name"])


def listed(kind: str, project: str) -> list[str]:
    """Names of a project's containers (ended ones too), volumes or networks."""
    arguments = {
        "container": ["ps", "--all", "--format", "{{.Names}}"],
        "volume": ["volume", "ls", "--format", "{{.Name}}"],
        "network": ["network", "ls", "--format", "{{.Name}}"],
    }[kind]
    return docker(*arguments, "--filter", f"label={LABEL}={project}").split()


def guests(network: str) -> dict[str, str]:
    """Other projects' containers in a network, each with its project: the gates of kits."""
    inside = json.loads(docker("network", "inspect", network))[0]["Containers"] or {}
    names = sorted(each["Name"] for each in inside.values())
    form = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    return {name: docker("inspect", "--format", form, name).strip() for name in names}


def remove(project: str) -> list[str]:
    """Remove a project's containers, volumes and networks.

    Nothing is asked to end in order first: what it would save is removed with it.

    Args:
        project: Its name.

    Returns:
        The other projects that were in one of its networks, and have lost it.

    Raises:
        DownError: Something could not be removed; the rest is.
    """
    faults, lost = list[str](), set[str]()

    def tried(*arguments: str) -> None:
        try:
            docker(*arguments)
        except DownError as error:
            faults.append(str(error))

    if containers := listed("container", project):
        tried("rm", "--force", "--volumes", *containers)
    for network in listed("network", project):
        for name, other in guests(network).items():
            tried("network", "disconnect", "--force", network, name)
            lost.add(other or name)
        tried("network", "rm", network)
    if volumes := listed("volume", project):
        tried("volume", "rm", "--force", *volumes)
    if faults:
        raise DownError("\n".join(faults))
    return sorted(lost)


def main(projects: list[str]) -> int:
    """Remove the projects, each whatever becomes of the others.

    Returns:
        The exit code: 0 if nothing is left of any.
    """
    code = 0
    try:
        projects = projects or [this_project()]
    except DownError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for project in projects:
        try:
            lost = remove(project)
        except DownError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 1
            continue
        print(f"nothing is left of {project}")
        for other in lost:
            print(
                f"{other} was plugged into it and goes on alone; to remove it too: "
                f"{sys.executable} compose/down.py {other}"
            )
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
