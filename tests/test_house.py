"""The rules of the house: which room may import which, and what a light command loads."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

LIGHT = {"errors", "files", "settings", "study", "objects", "s3", "run", "telemetry", "launch"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "study": {"errors"},
    "settings": {"errors"},
    "objects": {"errors"},
    "s3": {"errors", "objects"},
    "run": {"errors", "files", "settings", "study", "objects"},
    "telemetry": {"errors", "files", "settings", "study", "run"},
    "launch": {"errors", "files", "settings", "run"},
    "lake": LIGHT,
    "data": LIGHT | {"lake"},
    "model": LIGHT,
    "federation": LIGHT | {"model"},
    "evaluate": LIGHT | {"model", "data"},
    "registry": LIGHT | {"model", "evaluate"},
    "onboarding": LIGHT | {"federation", "data", "lake"},
    "local_airflow": LIGHT,
}
"""What each room may import beside itself; ``cli`` may import all and is imported nowhere."""
FLOORS: dict[str, list[set[str]]] = {
    "federation": [
        {"wire", "run_files"},
        {"vector"},
        {"messages", "learning_rate", "reporting", "server_status"},
        {"update"},
        {"strategies"},
        {"server", "hospital"},
        {"federation_run", "flower"},
        {"deployment"},
        {"join", "standing"},
        {"federated"},
    ],
    "lake": [
        {"jvm", "identities", "s3"},
        {"session", "tables"},
        {"engine"},
        {"setup", "class_archive_run"},
    ],
}
"""Modules and sub-rooms of a room, in order: one imports only itself and what stands before it."""


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


def modules(checkout: Path) -> dict[str, Path]:
    """Every module of the package and of the DAGs, by the name that it is imported by."""
    found = {}
    for root in (checkout / "tasks", checkout / "dags" / "fedrisk_airflow"):
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root.parent).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def test_within_a_room_modules_import_only_what_stands_before_them(checkout: Path) -> None:
    faults = []
    known = modules(checkout)
    for room, floors in FLOORS.items():
        place = {name: floor for floor, names in enumerate(floors) for name in names}
        prefix = f"tasks.{room}."
        for name, path in known.items():
            if not name.startswith(prefix):
                continue
            own = name.removeprefix(prefix).split(".")[0]
            assert own in place, f"give {name} its place in the order of {room}"
            used = {m.removeprefix(prefix).split(".")[0] for m in imports(path) & set(known)
                    if m.startswith(prefix)}  # fmt: skip
            wrong = sorted(n for n in used - {own} if place[n] >= place[own])
            faults += [f"{name} imports {prefix}{other}" for other in wrong]
    assert not faults, "\n".join(faults)


def test_no_modules_import_each_other_in_a_circle(checkout: Path) -> None:
    known = modules(checkout)
    graph = {name: imports(path) & set(known) - {name} for name, path in known.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


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
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=400, check=True
    )
    assert result.stdout.strip() == "[]"


def test_no_registry_host_or_machine_path_is_written_anywhere(checkout: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=400,
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
