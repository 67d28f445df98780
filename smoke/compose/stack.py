"""The compose stack as the smoke command sees it: projects, containers, what is left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from smoke.command import StackError, call


class Project:
    """One compose project."""

    def __init__(self, name: str, files: Sequence[str], variables: Mapping[str, str]) -> None:
        """Name it; nothing is started.

        Args:
            name: The project's name.
            files: Its compose files.
            variables: What the files ask of the environment.
        """
        self.name, self._variables = name, dict(variables)
        self._command = ["docker", "compose", "--project-name", name]
        self._command += [part for file in files for part in ("--file", file)]

    def compose(
        self, *arguments: str, deadline: float = 400.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of compose; see ``call``."""
        return call(
            *self._command, *arguments, deadline=deadline, check=check, variables=self._variables
        )

    def up(self, deadline: float) -> None:
        """Start all services and wait until they are healthy.

        Raises:
            StackError: They are not in time; the message has the ends of the logs.
        """
        wait = ("--wait", "--wait-timeout", f"{deadline:.0f}")
        try:
            self.compose("up", "--detach", *wait, deadline=deadline + 300)
        except StackError as error:
            states = {name: each["State"]["Status"] for name, each in self.containers().items()}
            logs = self.compose("logs", "--tail", "8", "--no-color", check=False).stdout
            raise StackError(f"{error}\n{states}\n{logs[-6000:]}") from None

    def inside(
        self, service: str, *command: str, deadline: float = 600.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a service's container, whatever its exit code."""
        return self.compose("exec", "--no-TTY", service, *command, deadline=deadline, check=False)

    def python(self, service: str, script: str) -> subprocess.CompletedProcess[str]:
        """Run Python in a service's container, with the keys of its identity."""
        keys = 'set -a; . /run/identity/s3.env; set +a; exec python -c "$0"'
        return self.inside(service, "sh", "-c", keys, script)

    def log(self, service: str) -> str:
        """A service's log."""
        return self.compose("logs", "--no-color", "--no-log-prefix", service).stdout

    def containers(self) -> dict[str, dict[str, Any]]:
        """What Docker knows of each service's container, ended ones too."""
        listed = call("docker", "ps", "--all", "--quiet", *_of(self.name)).stdout.split()
        if not listed:
            return {}
        found = json.loads(call("docker", "inspect", *listed).stdout)
        label = "com.docker.compose.service"
        return {each["Config"]["Labels"][label]: each for each in found}

    def left(self) -> list[str]:
        """Containers, volumes and networks that there are of it."""
        found = []
        for kind, arguments in (
            ("container", ["ps", "--all", "--format", "{{.Names}}"]),
            ("volume", ["volume", "ls", "--format", "{{.Name}}"]),
            ("network", ["network", "ls", "--format", "{{.Name}}"]),
        ):
            listed = call("docker", *arguments, *_of(self.name)).stdout.split()
            found += [f"{kind} {name}" for name in listed]
        return found

    def memory(self) -> dict[str, int]:
        """Memory of each running service, in MB."""
        names = {
            each["Name"].lstrip("/"): name
            for name, each in self.containers().items()
            if each["State"]["Running"]
        }
        if not names:
            return {}
        form = ("--format", "{{.Name}} {{.MemUsage}}")
        stats = call("docker", "stats", "--no-stream", *form, *names, check=False).stdout
        rows = [line.split() for line in stats.splitlines()]
        return {names[row[0]]: megabytes(row[1]) for row in rows if row and row[0] in names}

    def down(self) -> None:
        """Remove it with all that is of it, by its name alone: its files need not be readable."""
        call(sys.executable, "compose/down.py", self.name, deadline=400)


def megabytes(text: str) -> int:
    """A size as Docker writes it (``12.3MiB``), in MB."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("kB", 1e3), ("B", 1)):
        if text.endswith(unit):
            return round(float(text.removesuffix(unit)) * factor / 1e6)
    return 0


def _of(project: str) -> list[str]:
    return ["--filter", f"label=com.docker.compose.project={project}"]
