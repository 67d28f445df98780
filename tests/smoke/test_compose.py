"""The compose smoke command ends with its table and takes down what it started."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest

from smoke.command import StackError
from smoke.compose.limits import Peak, exceeded
from smoke.compose.stack import Project
from smoke.compose.stages import Smoke, smoke
from smoke.table import Table


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        project="fedrisk-none",
        tag="dev",
        table=tmp_path / "table.json",
        shots=None,
        browser=False,
        keep=False,
    )


@pytest.fixture
def downs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which projects were taken down; of the guest's it fails."""
    found: list[str] = []

    def down(project: Project) -> None:
        found.append(project.name)
        if project.name.endswith("hospital-4"):
            raise OSError("permission denied")

    monkeypatch.setattr(Project, "down", down)
    monkeypatch.setattr(Project, "left", lambda _: [])
    return found


def verdicts(table: Table) -> dict[str, bool]:
    return {each.id: each.held for each in table.checks}


def test_without_docker_there_is_a_table_and_no_traceback(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    out = io.StringIO()
    assert smoke(options, Table(out)) == 1
    written = json.loads(options.table.read_text())
    assert [each["held"] for each in written["checks"]] == [False]
    assert "docker" in written["checks"][0]["seen"]


def test_a_stack_that_was_there_before_is_refused_and_left_alone(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, downs: list[str]
) -> None:
    monkeypatch.setattr(Project, "left", lambda project: [f"volume {project.name}_s3"])
    table = Table(io.StringIO())
    assert smoke(options, table) == 1
    assert verdicts(table) == {"alone": False, "goes-through": False}
    seen = table.checks[-1].seen
    assert "compose/down.py fedrisk-none fedrisk-none-hospital-4" in seen
    assert downs == []


def test_each_project_is_taken_down_whatever_becomes_of_the_other(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, downs: list[str]
) -> None:
    monkeypatch.setattr(Smoke, "images", lambda _: None)

    def up(*_: object, **__: object) -> None:
        raise StackError("a service is not healthy")

    monkeypatch.setattr(Project, "up", up)
    table = Table(io.StringIO())
    assert smoke(options, table) == 1
    assert downs == ["fedrisk-none-hospital-4", "fedrisk-none"]
    assert [each.what for each in table.checks if each.id == "down"] == [
        "fedrisk-none-hospital-4 is taken down"
    ]
    assert verdicts(table)["nothing-left"] is True


def test_a_run_beside_it_that_does_not_end_keeps_nothing_up(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, downs: list[str], tmp_path: Path
) -> None:
    class Stuck:
        def end(self) -> None:
            raise TimeoutError("it goes on")

    table = Table(io.StringIO())
    made = Smoke(table, options, tmp_path)
    made.started, made.beside = True, Stuck()  # type: ignore[assignment]
    made.end()
    assert downs == ["fedrisk-none-hospital-4", "fedrisk-none"]
    assert verdicts(table)["beside"] is False


def test_the_kit_is_given_to_whoever_runs_the_command_and_never_to_the_images_user(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1234)
    monkeypatch.setattr("os.getgid", lambda: 5678)
    variables = Smoke(Table(io.StringIO()), options, tmp_path).variables()
    assert variables["FEDRISK_USER"] == "1234:5678"
    # What a .env says of the stack that is in use.
    assert variables["STACK_BIND"] == "127.0.0.1"
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert Smoke(Table(io.StringIO()), options, tmp_path).owner not in ("0:0", "1000:1000")


def container(**more: Any) -> dict[str, Any]:
    state = {"OOMKilled": False, "Running": True} | more.pop("State", {})
    return {"HostConfig": {"Memory": 10**9}, "State": state, "RestartCount": 0} | more


@pytest.mark.parametrize(
    ("found", "size", "fault"),
    [
        (container(), 900, None),
        (container(State={"OOMKilled": True}), 900, "was killed for want of memory"),
        (container(RestartCount=2), 900, "was restarted 2 times"),
        (container(HostConfig={"Memory": 0}), 900, "has no limit"),
        (container(), 0, "was never seen"),
        (container(), 1000, "had 1000 of 1000 MB"),
    ],
)
def test_memory_is_compared_with_its_limit(
    found: dict[str, Any], size: int, fault: str | None
) -> None:
    said = exceeded("stack/mlflow", found, {"stack/mlflow": size})
    assert said == ([f"stack/mlflow {fault}"] if fault else [])


def test_no_service_at_all_is_none_within_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project, "containers", lambda _: {})
    table = Table(io.StringIO())
    Peak({"stack/mlflow": 3}).check(table, [Project("stack", [], {})])
    assert not table.held
