"""Whether the services of a stack stayed within what they are given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from smoke.compose.stack import Project
from smoke.table import Table


@dataclass
class Peak:
    """The most memory that each container was seen with, in MB, by its name."""

    sizes: dict[str, int] = field(default_factory=dict)

    def see(self, project: Project) -> None:
        """Look at a project's services once."""
        for name, size in project.memory().items():
            key = f"{project.name}/{name}"
            self.sizes[key] = max(size, self.sizes.get(key, 0))

    def check(self, table: Table, projects: Iterable[Project]) -> None:
        """Check all services that run.

        Args:
            table: Gets the check.
            projects: Their projects.
        """
        states = {
            f"{project.name}/{name}": each
            for project in projects
            for name, each in project.containers().items()
            if each["State"]["Running"]
        }
        faults = [fault for name in states for fault in exceeded(name, states[name], self.sizes)]
        seen = ", ".join(
            f"{name.partition('/')[2]} {size} MB" for name, size in sorted(self.sizes.items())
        )
        table.check(
            "memory",
            "each service stays within its memory, and none was killed or restarted",
            bool(states) and not faults,
            "; ".join(faults) or seen,
        )


def exceeded(name: str, container: dict[str, Any], sizes: dict[str, int]) -> list[str]:
    """What is wrong with a container's use of memory.

    Args:
        name: Its name in ``sizes``.
        container: What Docker knows of it.
        sizes: The most that each was seen with, in MB.
    """
    limit, peak = container["HostConfig"]["Memory"] / 1e6, sizes.get(name, 0)
    found = []
    if container["State"]["OOMKilled"]:
        found.append(f"{name} was killed for want of memory")
    if container["RestartCount"]:
        found.append(f"{name} was restarted {container['RestartCount']} times")
    if not limit:
        found.append(f"{name} has no limit")
    elif not peak:
        found.append(f"{name} was never seen")
    elif peak >= limit:
        found.append(f"{name} had {peak} of {limit:.0f} MB")
    return found
