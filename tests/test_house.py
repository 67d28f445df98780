"""The rules of the house: which room may import which, and what a light command loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIGHT = {"errors", "settings", "manifest", "study", "objects", "store", "plan"}
LIGHT |= {"telemetry", "launch"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "study": {"errors"},
    "settings": {"errors"},
    "manifest": {"errors", "settings"},
    "objects": {"errors"},
    "store": {"errors", "settings", "manifest", "objects"},
    "plan": {"errors", "settings", "manifest", "study", "store"},
    "telemetry": {"errors", "settings", "manifest", "study", "plan"},
    "launch": {"errors", "settings", "manifest", "store"},
    "step": LIGHT,
    "lake": LIGHT | {"step"},
    "data": LIGHT | {"step", "lake"},
    "model": LIGHT,
    "federation": LIGHT | {"step", "model"},
    "evaluate": LIGHT | {"step", "model", "data"},
    "registry": LIGHT | {"step", "model", "evaluate"},
    "onboarding": LIGHT | {"federation", "data", "lake"},
    "embedded": LIGHT,
}
"""What each room may import beside itself; ``cli`` may import everything, and nobody imports it."""


def imports(path: Path) -> set[str]:
    """Every module that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def rooms(checkout: Path) -> dict[str, list[Path]]:
    """The files of each room."""
    found: dict[str, list[Path]] = {}
    for path in sorted((checkout / "tasks").rglob("*.py")):
        first = path.relative_to(checkout / "tasks").parts[0].removesuffix(".py")
        found.setdefault(first, []).append(path)
    return found


def test_a_room_imports_only_rooms_before_it(checkout: Path) -> None:
    faults = []
    for room, paths in rooms(checkout).items():
        if room in ("__init__", "cli"):
            continue
        assert room in MAY_IMPORT, f"give the new room {room} its place in the order"
        for path in paths:
            used = {m.split(".")[1] for m in imports(path) if m.startswith("tasks.")}
            used = {name for name in used if name in MAY_IMPORT or name == "cli"}
            for other in sorted(used - MAY_IMPORT[room] - {room}):
                faults.append(f"{path.relative_to(checkout)} imports tasks.{other}")
    assert not faults, "\n".join(faults)


def test_no_step_imports_airflow(checkout: Path) -> None:
    faults = [
        str(path.relative_to(checkout))
        for paths in rooms(checkout).values()
        for path in paths
        if any(name.split(".")[0] == "airflow" for name in imports(path))
    ]
    assert not faults


def test_the_model_knows_neither_the_lake_nor_flower(checkout: Path) -> None:
    for path in rooms(checkout).get("model", []):
        names = {name.split(".")[0] for name in imports(path)}
        assert not names & {"flwr", "pyspark", "delta", "mlflow"}, path


def test_modules_are_short_enough_to_read(checkout: Path) -> None:
    lengths = {
        str(path.relative_to(checkout)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (checkout / "tasks").rglob("*.py")
    }
    too_long = {name: count for name, count in lengths.items() if count > 350}
    assert not too_long
    ordered = sorted(count for count in lengths.values() if count > 5)
    assert ordered[len(ordered) // 2] < 160


@pytest.mark.parametrize(
    "module",
    ["tasks.run.plan", "tasks.run.step", "tasks.launch.process", "tasks.cli", "tasks.telemetry"],
)
def test_a_light_module_loads_no_heavy_library(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'mlflow', 'pyspark', 'great_expectations', 'flwr', 'pandas', 'numpy',"
        " 'matplotlib', 'airflow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == "[]"


def test_no_registry_host_or_machine_path_is_written_anywhere(checkout: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()
    hosts = ["py" + "pi.org", "python" + "hosted.org", "maven" + ".org", "registry.npm" + "js"]
    faults = []
    for name in listed:
        path = checkout / name
        if not path.is_file() or path.suffix in {".png", ".data"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        faults += [f"{name}: {host}" for host in [*hosts, "/work" + "/main"] if host in text]
    assert not faults
