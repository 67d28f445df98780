"""What a hospital can reach is tried where something listens, by name and by address."""

from __future__ import annotations

import io
import subprocess
from typing import Any

import pytest

from smoke.command import StackError
from smoke.compose import isolation
from smoke.table import Table
from smoke.waits import NotReached

HOSPITAL = "supernode-hospital-1"
OPEN = {"fedrisk-superlink:9092", "s3:8333"}


def container(**networks: str) -> dict[str, Any]:
    return {
        "NetworkSettings": {"Networks": {n: {"IPAddress": a} for n, a in networks.items()}},
    }


CONTAINERS = {
    "postgres": container(airflow="10.1.0.2"),
    "mlflow": container(airflow="10.1.0.3", outside="10.2.0.3"),
    "api-server": container(airflow="10.1.0.4", outside="10.2.0.4"),
    "scheduler": container(airflow="10.1.0.5", federation="10.3.0.5", outside="10.2.0.5"),
    "superlink": container(federation="10.3.0.6"),
    "s3": container(federation="10.3.0.7"),
    "gate-hospital-1": container(federation="10.3.0.8", one="10.4.0.2"),
    "gate-hospital-2": container(federation="10.3.0.9", two="10.5.0.2"),
    "supernode-hospital-1": container(one="10.4.0.3"),
    "supernode-hospital-2": container(two="10.5.0.3"),
    # It ended, so it has no address.
    "keys": container(none=""),
}


class Stack:
    """A stack whose hospital reaches what it is to reach, and what it is told to beside that."""

    def __init__(self, leaks: set[str] = frozenset(), late: int = 0) -> None:  # type: ignore[assignment]
        self.leaks, self.late, self.tried = leaks, late, set[str]()

    def inside(
        self, service: str, *command: str, deadline: float = 60
    ) -> subprocess.CompletedProcess[str]:
        lines = []
        for target in command[3:]:
            reached = service != HOSPITAL or target in OPEN | self.leaks
            if service == "gate-hospital-2" and self.late:
                # It has not begun to listen.
                self.late, reached = self.late - 1, False
            if service == HOSPITAL:
                self.tried.add(target)
            lines.append(f"{target} {'reached' if reached else 'not reached: no answer'}")
        return subprocess.CompletedProcess([], 0, "\n".join(lines), "")

    def containers(self) -> dict[str, Any]:
        return CONTAINERS

    def compose(self, *_: str) -> None:
        pass


def look(stack: Stack) -> list[str]:
    """What did not hold."""
    table = Table(io.StringIO())
    isolation._network(table, stack)  # type: ignore[arg-type]
    assert len(table.checks) == 5
    return [each.id for each in table.checks if not each.held]


def test_a_hospital_that_reaches_its_gate_alone_is_isolated() -> None:
    stack = Stack()
    assert look(stack) == []
    # Where they listen, and not only where nobody does.
    assert {"postgres:5432", "mlflow:5000", "api-server:8080", "scheduler:8974"} <= stack.tried
    assert {"10.1.0.2:5432", "10.2.0.3:5000", "10.1.0.4:8080", "10.3.0.5:8974"} <= stack.tried
    # The store and the SuperLink without its gate.
    assert {"10.3.0.6:9092", "10.3.0.7:8333", "10.3.0.7:18333", "10.3.0.7:9333"} <= stack.tried
    # What else the store's script opens: its metrics, to whoever is in its network, and its parts.
    for port in (9327, 8888, 8080, 18080, 18888, 19333):
        assert {f"10.3.0.7:{port}", f"federation-s3:{port}", f"s3:{port}"} <= stack.tried
    assert not any(target.startswith(":") for target in stack.tried)


@pytest.mark.parametrize(
    "leak",
    [
        *("postgres:5432", "10.1.0.2:5432", "10.3.0.6:9092", "10.3.0.7:8333", "s3:18333"),
        *("s3:9327", "10.3.0.7:9327", "10.3.0.7:8080"),
    ],
)
def test_one_open_port_is_enough_to_fail(leak: str) -> None:
    assert look(Stack({leak})) == ["nothing-else"]


def test_another_hospitals_container_is_not_reached_by_its_address() -> None:
    assert look(Stack({"10.5.0.3:7000"})) == ["other-container"]


def test_a_listener_that_was_only_just_started_is_waited_for() -> None:
    # The gate's own ports are tried before, by others.
    assert look(Stack(late=3)) == []


def test_a_probe_that_fails_is_no_port_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def inside(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "no such container")

    monkeypatch.setattr(Stack, "inside", inside)
    with pytest.raises((StackError, NotReached), match="no such container"):
        look(Stack())
