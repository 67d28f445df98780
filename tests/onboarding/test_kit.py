"""The start-up kit: made atomically, keys for their owner only, files that other tools accept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from helm_chart import API, objects_of
from kubernetes_cluster import helm_program, need_cluster, places
from ruamel.yaml import YAML

from tasks.cli import main
from tasks.errors import SettingsError
from tasks.federation.deployment.certificates import make_node_key
from tasks.federation.standing.certificate_watch import CERTIFICATE_POLL
from tasks.onboarding.checks.hospital import check_hospital
from tasks.onboarding.keys import read_private_key, registered_keys
from tasks.settings import Settings
from tests.onboarding.conftest import Consortium

KEY = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret-of-north"}


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def merged(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{k: merged(base.get(k), v) for k, v in over.items()}}
    return over


def test_private_files_are_for_their_owner_only_and_no_other_file_has_a_secret(
    consortium: Consortium,
) -> None:
    kit = consortium.add("north", credentials=KEY)
    private = {path.name for path in kit.iterdir() if path.stat().st_mode & 0o077 == 0}
    assert private == {"node.key", "credentials.env"}
    for path in kit.iterdir():
        text = path.read_text()
        if path.name not in private:
            assert "PRIVATE KEY" not in text, path
            assert "secret-of-north" not in text, path


def test_a_hospital_that_gives_its_own_public_key_keeps_its_private_key(
    consortium: Consortium, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    key, public = make_node_key(own)
    kit = consortium.add("north", public_key=public)
    assert not (kit / "node.key").exists()

    def lacking() -> set[str]:
        found = check_hospital(kit, Settings(home=tmp_path / "home"))
        return {each.name for each in found if each.state == "missing"}

    assert "node key" in lacking()
    shutil.copy(key, kit / "node.key")
    assert "node key" not in lacking()


def test_a_key_of_openssh_is_accepted(consortium: Consortium, tmp_path: Path) -> None:
    program = shutil.which("ssh-keygen")
    if program is None:
        pytest.skip("needs ssh-keygen")
    key = tmp_path / "node.key"
    command = [program, "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(key)]
    subprocess.run(command, check=True, timeout=400)
    consortium.add("north", public_key=tmp_path / "node.key.pub")
    assert read_private_key(key)
    assert list(registered_keys(consortium.registered)) == ["north"]


@pytest.mark.parametrize(
    "name", ["North", "1st", "a_b", "north-", "", "a" * 36, "../north", "pool", "on", "null"]
)
def test_an_invalid_name_is_refused_and_nothing_is_left(consortium: Consortium, name: str) -> None:
    with pytest.raises(SettingsError, match="35 characters"):
        consortium.add(name, out=consortium.root / "kit")
    assert not (consortium.root / "kit").exists()
    assert not consortium.registered.exists()


def test_a_hospital_twice_and_another_hospitals_key_are_refused(consortium: Consortium) -> None:
    kit = consortium.add("north")
    with pytest.raises(SettingsError, match="hospital north is registered"):
        consortium.add("north", out=consortium.root / "again")
    with pytest.raises(SettingsError, match="registered for hospital north"):
        consortium.add("south", public_key=kit / "node.pub")
    assert list(registered_keys(consortium.registered)) == ["north"]
    assert not list(consortium.root.glob("*again*"))
    assert not list(consortium.root.glob("*south*"))


def test_keys_that_flower_would_refuse_are_refused_with_advice(
    consortium: Consortium, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key, _ = make_node_key(tmp_path)
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    files = {
        "is a private key": key.read_bytes(),
        "unsupported key type": other.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "not a public key": b"ecdsa-sha2-nistp384 AAAA\n",
        "found 0 lines": b"",
        "found 2 lines": b"a\nb\n",
    }
    for words, content in files.items():
        path = tmp_path / "given.pub"
        path.write_bytes(content)
        with pytest.raises(SettingsError, match=words):
            consortium.add("north", public_key=path)
    assert not consortium.registered.exists()


def test_a_folder_with_content_is_not_changed_and_nothing_is_registered(
    consortium: Consortium,
) -> None:
    out = consortium.root / "full"
    out.mkdir()
    (out / "file").write_text("mine")
    with pytest.raises(SettingsError, match="not empty"):
        consortium.add("north", out=out)
    assert [path.name for path in out.iterdir()] == ["file"]
    assert not registered_keys(consortium.registered)


def test_values_of_a_kit_satisfy_the_charts_schema(consortium: Consortium, checkout: Path) -> None:
    import jsonschema

    chart = checkout / "helm" / "fedrisk"
    schema = json.loads((chart / "values.schema.json").read_text())
    store = {"AWS_ENDPOINT_URL": "https://s3.example.org", "AWS_REGION": "eu-central-1"}
    kit = consortium.add("north", superlink="superlink.example.org:9092", environment=store)
    base = load(chart / "values.yaml")
    for name in ("values.yaml", "network.values.yaml", "registered.values.yaml"):
        jsonschema.validate(merged(base, load(kit / name) or {}), schema)
    values = load(kit / "values.yaml")
    assert values["store"]["endpoint"] == store["AWS_ENDPOINT_URL"]
    public = registered_keys(consortium.registered)["north"]
    assert load(kit / "registered.values.yaml")["hospitals"]["north"]["publicKey"] == public
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(base, {"hospitals": {"North": {}}}), schema)


def readme_commands(kit: Path) -> str:
    text = (kit / "README.md").read_text()
    return text.split("```\n")[1]


def dry(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\nset -euo pipefail\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("own_key", [False, True])
def test_the_readmes_commands_install_a_supernode_that_reaches_only_its_own(
    consortium: Consortium, checkout: Path, tmp_path: Path, own_key: bool
) -> None:
    need_cluster()
    store = {"AWS_ENDPOINT_URL": "https://203.0.113.5:9000", "AWS_REGION": "eu-central-1"}
    more: dict[str, object] = {}
    if own_key:
        (tmp_path / "own").mkdir()
        key, more["public_key"] = make_node_key(tmp_path / "own")
    kit = consortium.add(
        "north",
        superlink="198.51.100.10:9443",
        environment=store,
        credentials=KEY,
        image="registry.example/team/fedrisk-hospital:abc",
        **more,
    )
    if own_key:
        shutil.copy(key, kit / "node.key")
    # The unchanged commands, but nothing is sent to a cluster.
    programs, said = tmp_path / "programs", tmp_path / "said"
    kubectl = f"{places()['K8S_BIN']}/kubebox kubectl"
    dry(programs, "kubectl", f'{kubectl} "$@" --dry-run=client -o json > "{said}.$3.${{4:-}}"')
    # helm upgrade --install NAME ... -> helm template NAME ...
    version = " ".join(API)
    dry(programs, "helm", f'shift 2; "{helm_program()}" template {version} "$@" > "{said}.helm"')
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", readme_commands(kit)],
        cwd=kit,
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "CHART": str(checkout / "helm" / "fedrisk"),
        },
        check=True,
        timeout=400,
    )
    secret = json.loads((tmp_path / "said.create.secret").read_text())
    assert secret["metadata"]["name"] == "fedrisk-hospital-north"
    held = {name: b64decode(value).decode() for name, value in secret["data"].items()}
    assert held == {"node.key": (kit / "node.key").read_text(), **KEY}
    objects = objects_of((tmp_path / "said.helm").read_text())
    node = objects["StatefulSet", "fedrisk-hospital-north"]["spec"]["template"]["spec"]
    images = {each["image"] for each in node["containers"]}
    assert images == {"registry.example/team/fedrisk-hospital:abc"}
    approved = objects["ConfigMap", "fedrisk-hospital-north"]["data"]["approved.yaml"]
    assert YAML(typ="safe").load(approved) == {"studies": []}
    rules = objects["NetworkPolicy", "fedrisk-hospital-north"]["spec"]["egress"]
    reached = {
        (peer["ipBlock"]["cidr"], port["port"])
        for rule in rules
        for peer in rule["to"]
        for port in rule["ports"]
    }
    assert reached == {("198.51.100.10/32", 9443), ("203.0.113.5/32", 9000)}


def test_an_upgrade_without_the_hospitals_own_file_approves_no_study(
    consortium: Consortium,
) -> None:
    values = load(consortium.add("north") / "values.yaml")
    approved = values["hospitals"]["north"]["approved"]
    assert YAML(typ="safe").load(approved) == {"studies": []}


def test_addresses_that_only_the_hospital_knows_are_left_to_fill_in(consortium: Consortium) -> None:
    kit = consortium.add("north", superlink="fl.example.org:9092")
    text = (kit / "network.values.yaml").read_text()
    assert load(kit / "network.values.yaml") is None
    assert "fl.example.org:9092" in text
    # Uncommented it is valid for the chart.
    shown = "\n".join(x[1:] for x in text.splitlines() if x.startswith(("#n", "#h", "#  ")))
    tree = YAML(typ="safe").load(shown)
    assert tree["networkPolicy"]["superlink"]["cidrs"]
    assert tree["hospitals"]["north"]["store"][0]["ports"] == [{"port": 443}]


@pytest.mark.parametrize("image", ["fedrisk-hospital:latest", "fedrisk-hospital", "other:1"])
def test_an_image_that_the_chart_cannot_use_is_refused(consortium: Consortium, image: str) -> None:
    with pytest.raises(SettingsError, match="FEDRISK_IMAGES"):
        consortium.add("north", image=image)
    assert not registered_keys(consortium.registered)


def test_only_the_certificate_of_the_authoritys_file_is_copied(
    consortium: Consortium, tmp_path: Path
) -> None:
    own = consortium.federation
    both = tmp_path / "both.pem"
    both.write_text((own / "ca.crt").read_text() + (own / "authority" / "ca.key").read_text())
    kit = consortium.add("north", authority=both)
    assert "PRIVATE" not in (kit / "ca.crt").read_text() + (kit / "values.yaml").read_text()
    with pytest.raises(SettingsError, match=r"tls\.crt: not the authority's certificate"):
        consortium.add("south", authority=own / "tls.crt")


def test_compose_accepts_the_kits_file(consortium: Consortium) -> None:
    if shutil.which("docker") is None:
        pytest.skip("needs docker")
    kit = consortium.add("north", credentials=KEY)
    done = subprocess.run(
        ["docker", "compose", "-f", str(kit / "compose.yaml"), "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    service = json.loads(done.stdout)["services"]["supernode"]
    assert service["environment"]["AWS_SECRET_ACCESS_KEY"] == "secret-of-north"
    assert service["environment"]["FEDRISK_SUPERLINK"] == "localhost:9092"
    assert service["read_only"] is True


def test_docker_never_creates_a_file_that_the_hospital_has_yet_to_add(
    consortium: Consortium, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    kit = consortium.add("north", public_key=make_node_key(tmp_path / "own")[1])
    assert not (kit / "node.key").exists()
    mounts = load(kit / "compose.yaml")["services"]["supernode"]["volumes"]
    files = {each["source"]: each for each in mounts if isinstance(each, dict)}
    assert set(files) == {"./node.key", "./ca.crt", "./approved.yaml"}
    for each in files.values():
        assert each["type"] == "bind"
        assert each["read_only"] is True
        # Docker would create a folder of that name, owned by root.
        assert each["bind"] == {"create_host_path": False}
    # Nothing of the kit uses the short syntax of volumes.
    assert [each for each in mounts if isinstance(each, str)] == ["state:/var/lib/fedrisk"]


def test_the_commands_add_list_check_and_remove(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDRISK_REGISTERED", str(consortium.registered))
    monkeypatch.setenv("FEDRISK_IDENTITY", str(consortium.federation))
    monkeypatch.setenv("FEDRISK_SUPERLINK", "localhost:1")
    kit = consortium.root / "kit"
    assert main(["hospital", "add", "north", "--out", str(kit)]) == 0
    assert "publicKey: ecdsa-sha2-nistp384" in capsys.readouterr().out
    assert main(["hospital", "list"]) == 0
    assert "north" in capsys.readouterr().out
    (kit / "node.key").chmod(0o644)
    (kit / "approved.yaml").write_text("studies: [stroke]\n")
    assert main(["hospital", "check", "--kit", str(kit), "--json"]) == 2
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    states = {name: each["state"] for name, each in found.items()}
    assert states["node.key, access"] == "missing"
    assert "chmod 600" in found["node.key, access"]["todo"]
    assert states["approved studies"] == states["connection"] == states["own store"] == "missing"
    assert states["node key"] == states["ca.crt"] == "ok"
    assert main(["hospital", "remove", "north"]) == 0
    assert main(["hospital", "remove", "north"]) == 2
    assert "is not registered" in capsys.readouterr().err


def test_renew_reports_what_the_superlink_does_by_itself(
    consortium: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["federation", "renew", "--out", str(consortium.federation)]) == 0
    printed = capsys.readouterr().out
    assert f"which picks it up by itself within {CERTIFICATE_POLL:g} s" in printed
    assert "restart" not in printed
