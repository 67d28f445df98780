"""Remove everything of a compose project: ``python compose/down.py [PROJECT...]``.

It uses the label that Compose sets on everything, so it needs none of the files, overrides and
variables with which the project was started; ``docker compose down`` removes only what is in its
files. The default is the project of this checkout, named by ``.env`` and the environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LABEL = "com.docker.compose.project"
COMMAND_DEADLINE = 120.0
"""Seconds for one command of Docker; there are at most six, and two per network."""


class DownError(Exception):
    """A command of Docker failed, or took too long."""


def docker(*arguments: str) -> str:
    """Run a command of Docker and return its output.

    Raises:
        DownError: It failed; the message contains the reason.
    """
    command = f"docker {' '.join(arguments)[:100]}"
    try:
        done = subprocess.run(
            ["docker", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE,
            check=False,
        )
    except OSError as error:
        raise DownError(f"{command}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise DownError(f"{command}: not done within {COMMAND_DEADLINE:.0f} s") from None
    if done.returncode != 0:
        raise DownError(f"{command}: {done.stderr.strip()[-1000:]}")
    return done.stdout


def this_project() -> str:
    """The project name of ``docker compose up`` in this checkout."""
    return str(json.loads(docker("compose", "config", "--format", "json"))["name"])


def listed(kind: str, project: str) -> list[str]:
    """Names of a project's containers (also exited ones), volumes or networks."""
    arguments = {
        "container": ["ps", "--all", "--format", "{{.Names}}"],
        "volume": ["volume", "ls", "--format", "{{.Name}}"],
        "network": ["network", "ls", "--format", "{{.Name}}"],
    }[kind]
    return docker(*arguments, "--filter", f"label={LABEL}={project}").split()


def guests(network: str) -> dict[str, str]:
    """Containers of a network with their projects; other projects' are the gates of kits."""
    inside = json.loads(docker("network", "inspect", network))[0]["Containers"] or {}
    names = sorted(each["Name"] for each in inside.values())
    form = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    return {name: docker("inspect", "--format", form, name).strip() for name in names}


def remove(project: str) -> list[str]:
    """Remove a project's containers, volumes and networks.

    Containers are killed, because all that they would save is removed too.

    Args:
        project: Its name.

    Returns:
        The other projects that lost a network of this one.

    Raises:
        DownError: Something could not be removed; all else is removed.
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
    """Remove the projects independently of each other.

    Returns:
        The exit code: 0 if all were removed.
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
                f"{other} was connected to it and still runs; to remove it too: "
                f"{sys.executable} compose/down.py {other}"
            )
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
