"""The compose files as Docker Compose reads them, without starting anything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML
from scripts import load_script

from smoke.stack import ROOT

ONCE = {"keys", "databases"}
NO_ROOT = {"keys": "gives volumes away", "postgres": "becomes its own user"}


@pytest.fixture(scope="module")
def override() -> ModuleType:
    return load_script(ROOT / "compose" / "override.py")


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    """Both studies' stack, with everything that is included and filled in."""
    if shutil.which("docker") is None:
        if os.environ.get("REQUIRE_SHARED_DATA") == "1":
            pytest.fail("this must not be skipped here: there is no docker")
        pytest.skip("there is no docker")
    files = ["--file", "docker-compose.yaml", "--file", "compose/heart.yaml"]
    done = subprocess.run(
        ["docker", "compose", *files, "config", "--format", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def hospitals(study: str) -> list[str]:
    path = ROOT / "dags" / "studies" / f"{study}.yaml"
    return list(YAML(typ="safe").load(path)["hospitals"])


def test_the_heart_studys_file_is_what_the_command_writes(override: ModuleType) -> None:
    written = (ROOT / "compose" / "heart.yaml").read_text()
    assert written.endswith(override.override(hospitals("heart")))


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a" * 60])
def test_a_name_that_is_unfit_is_refused(override: ModuleType, name: str) -> None:
    with pytest.raises(SystemExit, match="expected small letters, digits, hyphens"):
        override.override(["fine", name])


def test_every_hospital_of_both_studies_is_alone_with_its_gate(stack: dict[str, Any]) -> None:
    for name in hospitals("stroke") + hospitals("heart"):
        assert stack["networks"][name]["internal"]
        inside = {s for s, each in stack["services"].items() if name in each.get("networks", {})}
        assert inside == {f"supernode-{name}", f"gate-{name}"}
        node = stack["services"][f"supernode-{name}"]
        assert set(node["networks"]) == {name}
        volumes = {each["source"] for each in node["volumes"] if each["type"] == "volume"}
        assert volumes == {name, f"{name}-identity"}
        others = [
            s
            for s, each in stack["services"].items()
            if {v.get("source") for v in each.get("volumes", ())} & volumes
        ]
        assert set(others) == {f"supernode-{name}", "keys"}


def test_every_service_is_confined(stack: dict[str, Any]) -> None:
    for name, each in stack["services"].items():
        assert each["cap_drop"] == ["ALL"], name
        assert each["read_only"], name
        assert "no-new-privileges:true" in each["security_opt"], name
        assert int(each["mem_limit"]) > 0, name
        assert each["restart"] == ("no" if name in ONCE else "unless-stopped"), name
        check = each.get("healthcheck", {})
        assert bool(check.get("disable")) == (name in ONCE), name
        if each.get("user", "").startswith("0") or "cap_add" in each:
            assert name in NO_ROOT, name


def test_ports_are_open_to_this_machine_alone(stack: dict[str, Any]) -> None:
    ports = {name: each["ports"] for name, each in stack["services"].items() if each.get("ports")}
    assert set(ports) == {"api-server", "mlflow"}
    assert {port["host_ip"] for each in ports.values() for port in each} == {"127.0.0.1"}


def test_no_file_holds_a_secret(stack: dict[str, Any]) -> None:
    words = ("password", "secret", "token", "key")
    for name, each in stack["services"].items():
        for variable, value in (each.get("environment") or {}).items():
            if any(word in variable.lower() for word in words):
                assert str(value).startswith("/"), f"{name}: {variable} is no path of a file"
