"""The compose files as Docker Compose reads them, without starting anything."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML
from scripts import load_script

from smoke.command import ROOT
from tasks.onboarding.keys import NAME
from tasks.onboarding.kit_files import KitFacts, compose
from tasks.study.base import RESERVED_NAMES

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
    return read(["docker-compose.yaml", "compose/heart.yaml"], {})


def read(files: list[str], variables: dict[str, str]) -> dict[str, Any]:
    """What Compose makes of files, with no variable but these."""
    named = [word for file in files for word in ("--file", file)]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STACK", "COMPOSE_"))}
    done = subprocess.run(
        # Not what a .env of the checkout says.
        ["docker", "compose", "--env-file", "/dev/null", *named, "config", "--format", "json"],
        cwd=ROOT,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=400,
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


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a-", "1st", "a" * 36])
def test_a_name_that_is_unfit_is_refused(override: ModuleType, name: str) -> None:
    with pytest.raises(SystemExit, match="expected lower-case letters, digits and '-'"):
        override.override(["fine", name])


def test_a_name_is_fit_as_the_hospitals_own_commands_say(override: ModuleType) -> None:
    assert override.NAME.pattern == NAME.pattern
    assert override.OWNERS == RESERVED_NAMES
    for name in RESERVED_NAMES:
        with pytest.raises(SystemExit, match="another owner's key of the store"):
            override.override([name])


def test_no_hospital_takes_a_network_or_a_volume_of_the_stack(override: ModuleType) -> None:
    files = [ROOT / "docker-compose.yaml", ROOT / "compose" / "heart.yaml"]
    main, heart = (YAML(typ="safe").load(path) for path in files)
    for each in [*main["networks"], *main["volumes"]]:
        # What a hospital mounts is its own name, and its own name with the ending.
        for name in (each, each.removesuffix("-identity")):
            assert override.fault(name), name
    assert override.fault("default"), "Compose's own network"
    mine = {name for name in override.STACK if not name.endswith("-identity")}
    theirs = {*main["networks"], *main["volumes"], "superlink", "default"}
    assert mine <= theirs, "a name that is refused for nothing"
    # Of a hospital that another override has brought.
    assert all(override.fault(each) for each in heart["volumes"] if each.endswith("-identity"))


def test_a_hospital_stands_there_once(override: ModuleType) -> None:
    with pytest.raises(SystemExit, match="'north': given twice"):
        override.override(["north", "south", "north"])
    with pytest.raises(SystemExit, match="no hospital"):
        override.override([])


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


@pytest.mark.parametrize(
    ("variables", "hosts", "origin", "airflow"),
    [
        ({}, {"127.0.0.1:*"}, "http://127.0.0.1:5000", "http://localhost:8080"),
        ({"STACK_BIND": "10.0.0.5"}, {"10.0.0.5:*"}, "http://10.0.0.5:5000", None),
        (
            {"STACK_BIND": "0.0.0.0", "STACK_HOST": "stack.example", "STACK_MLFLOW_PORT": "5001"},
            {"stack.example:*"},
            "http://stack.example:5001",
            "http://stack.example:8080",
        ),
    ],
)
def test_the_pages_can_be_asked_for_by_the_name_that_they_are_bound_to(
    stack: dict[str, Any],
    variables: dict[str, str],
    hosts: set[str],
    origin: str,
    airflow: str | None,
) -> None:
    services = read(["docker-compose.yaml"], variables)["services"]
    mlflow = services["mlflow"]["environment"]
    assert hosts | {"mlflow:5000"} <= set(mlflow["MLFLOW_SERVER_ALLOWED_HOSTS"].split(","))
    assert mlflow["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] == origin
    if airflow:
        assert services["api-server"]["environment"]["AIRFLOW__API__BASE_URL"] == airflow


def test_no_service_asks_a_proxy_for_another_service(stack: dict[str, Any]) -> None:
    for name, each in stack["services"].items():
        # The gates open sockets, Postgres asks nobody, and `keys` has no network.
        if name.startswith("gate-") or name in ("keys", "postgres"):
            continue
        direct = set(each["environment"]["NO_PROXY"].split(","))
        assert direct == set(each["environment"]["no_proxy"].split(",")), name
        asked = {"fedrisk-superlink", "s3", "localhost", "127.0.0.1"}
        assert asked <= direct, name
    # BusyBox's wget knows no exceptions.
    assert " http_proxy= wget " in stack["services"]["s3"]["healthcheck"]["test"][1]


def test_a_kit_that_is_plugged_in_asks_no_proxy_and_is_confined(
    stack: dict[str, Any], tmp_path: Path
) -> None:
    facts = KitFacts("north", "fedrisk-superlink:9092", "public", "ca", "image:tag", "s3a://lake")
    (tmp_path / "compose.yaml").write_text(compose(facts))
    (tmp_path / "hospital.env").touch()
    files = [str(tmp_path / "compose.yaml"), str(ROOT / "compose" / "kit.yaml")]
    found = read(files, {"STACK_FOLDER": str(ROOT), "STACK": "mine", "STACK_TAG": "abc"})
    assert found["networks"]["federation"]["name"] == "mine_federation"
    node, gate = found["services"]["supernode"], found["services"]["gate"]
    assert set(node["networks"]) == {"default"}
    assert {"fedrisk-superlink", "s3"} <= set(node["environment"]["NO_PROXY"].split(","))
    assert node["environment"]["NO_PROXY"] == node["environment"]["no_proxy"]
    assert gate["image"] == "fedrisk-hospital:abc"
    assert set(gate["networks"]) == {"default", "federation"}


@pytest.mark.parametrize("told", ["by the environment", "by .env"])
def test_a_kit_of_a_stack_of_another_name_is_a_project_of_its_own_in_that_stacks_network(
    stack: dict[str, Any], tmp_path: Path, told: str
) -> None:
    """The documentation's own command, run where the stack has another name."""
    kit = tmp_path / "kits" / "hospital-4"
    kit.mkdir(parents=True)
    facts = KitFacts("hospital-4", "fedrisk-superlink:9092", "public", "ca", "i:t", "s3a://lake")
    (kit / "compose.yaml").write_text(compose(facts))
    (kit / "hospital.env").touch()
    (tmp_path / "compose").symlink_to(ROOT / "compose")
    blocks = (ROOT / "docs" / "compose.md").read_text().split("```\n")[1::2]
    [commands] = [block for block in blocks if "compose/kit.yaml" in block]
    script = commands[commands.index("export ") :].replace("STACK=fedrisk\n", "STACK=mine\n")
    up = "up --detach --wait"
    assert "STACK=mine" in script
    assert up in script
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STACK", "COMPOSE_"))}
    if told == "by .env":
        (tmp_path / ".env").write_text("COMPOSE_PROJECT_NAME=mine\nCOMPOSE_FILE=none.yaml\n")
        script = script.replace(up, f"--env-file .env {up}")
    else:
        kept["COMPOSE_PROJECT_NAME"] = "mine"
    done = subprocess.run(
        ["bash", "-euc", script.replace(up, "config --format json")],
        cwd=tmp_path,
        env=kept,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["name"] == "fedrisk-hospital-4"
    assert found["networks"]["federation"]["name"] == "mine_federation"
    assert found["networks"]["federation"]["external"] is True
    # What compose/kit.yaml says at its head is the same.
    head = (ROOT / "compose" / "kit.yaml").read_text().partition("services:")[0]
    assert "STACK=fedrisk" in head
    assert "--project-name fedrisk-HOSPITAL" in head


def test_the_store_has_the_time_that_its_orderly_end_takes(stack: dict[str, Any]) -> None:
    assert stack["services"]["s3"]["stop_grace_period"] == "30s"


def test_kits_name_the_image_of_the_stack(stack: dict[str, Any]) -> None:
    made = read(["docker-compose.yaml"], {"STACK_TAG": "abc"})["services"]
    assert made["keys"]["environment"]["STACK_TAG"] == "abc"
    assert stack["services"]["keys"]["environment"]["STACK_TAG"] == "dev"


@pytest.mark.skipif(os.getuid() == 1000, reason="this user is the containers'")
def test_files_that_the_containers_cannot_read_are_told_before_anything_starts(
    tmp_path: Path,
) -> None:
    for name in ("Makefile", "compose/gate.py", "helm/fedrisk/files/s3.sh"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
        (tmp_path / name).chmod(0o644)

    def make() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "compose-files"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    assert make().returncode == 0
    (tmp_path / "compose" / "gate.py").chmod(0o600)
    refused = make()
    assert refused.returncode != 0
    assert "cannot read compose/gate.py: chmod -R a+rX compose" in refused.stderr
