"""The pods of all steps as Kubernetes is asked for them: whose they are and what they may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedrisk_airflow.kubernetes.pod_spec import (
    TEMPLATES,
    PodOf,
    check_launcher,
    hostname_of,
    limits_of,
    manifest_of,
    superlink_of,
)
from tasks.errors import SettingsError
from tasks.run.plan import Plan
from tasks.run.steps import STEPS
from tasks.settings import Settings
from tasks.study import read_study

RUN = "manual__2026-11-24T12-15-00-00-00_a1"
SETTINGS = Settings(
    launcher="kubernetes",
    store="s3://fedrisk-runs",
    lake="s3a://fl-demo-data-{hospital}",
    namespace="here",
    images="registry.example/fedrisk-{image}:abc",
)
TRAINING = {"central", "local", "federated", "join", "score"}
DATA = {"deal", "collect", "validate", "features"}
HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")
EVERY = [
    (name, hospital)
    for name, step in STEPS.items()
    for hospital in (HOSPITALS if step.each_hospital else (None,))
]


def plan(checkout: Path, *overrides: str) -> Plan:
    study = read_study(checkout / "dags" / "studies" / "stroke.yaml", overrides)
    return Plan(
        run=RUN, study=study, study_file="stroke.yaml", source=None, hospitals=list(HOSPITALS),
        promote=True, overrides=list(overrides), created="",
    )  # fmt: skip


def rendered(
    checkout: Path, step: str, hospital: str | None, *overrides: str, **settings: Any
) -> dict[str, Any]:
    given = SETTINGS.model_copy(update=settings)
    pod = PodOf(step, hospital, given.federation == "standing")
    return manifest_of(pod, plan(checkout, *overrides), given, study="stroke")


def variables(manifest: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in manifest["spec"]["containers"][0]["env"]}


def secrets(found: Any) -> set[str]:
    """Every secret that is named anywhere in a pod."""
    if isinstance(found, list):
        return set().union(*map(secrets, found))
    if not isinstance(found, dict):
        return set()
    names = {found["secretName"]} if "secretName" in found else set()
    for key in ("secret", "secretKeyRef", "secretRef"):
        if "name" in found.get(key, {}):
            names.add(found[key]["name"])
    return names.union(*map(secrets, found.values()))


@pytest.mark.parametrize("federation", ["run", "standing"])
@pytest.mark.parametrize(("step", "hospital"), EVERY)
def test_a_pod_has_its_owners_account_and_secret_and_no_others(
    checkout: Path, step: str, hospital: str | None, federation: str
) -> None:
    found = rendered(checkout, step, hospital, federation=federation)
    owner = hospital or ("pool" if step in ("deal", "central") else "consortium")
    account = f"fedrisk-hospital-{hospital}" if hospital else f"fedrisk-{owner}"
    assert found["spec"]["serviceAccountName"] == account
    assert found["spec"]["automountServiceAccountToken"] is False
    server = step == "federated" and federation == "run"
    assert secrets(found) == {account, *(["fedrisk-superlink"] if server else [])}
    labels = found["metadata"]["labels"]
    assert labels["fedrisk.io/owner"] == owner
    assert labels.get("fedrisk.io/hospital") == hospital
    assert labels["fedrisk.io/step"] == step
    assert labels["app.kubernetes.io/name"] == "fedrisk"
    assert labels["app.kubernetes.io/managed-by"] == "airflow"
    if hospital is not None:
        text = str(found)
        assert not [other for other in HOSPITALS if other != hospital and other in text]
        assert variables(found)["FEDRISK_LAKE"] == f"s3a://fl-demo-data-{hospital}"


@pytest.mark.parametrize(("step", "hospital"), EVERY)
def test_a_pod_runs_its_steps_command_in_its_steps_image(
    checkout: Path, step: str, hospital: str | None
) -> None:
    container = rendered(checkout, step, hospital)["spec"]["containers"][0]
    command = ["fedrisk", "step", step, "--study", "stroke", "--run", RUN]
    command += ["--hospital", hospital] if hospital else []
    # One pipe for both streams: two would not keep their order.
    assert container["command"] == ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *command]
    light = step in ("champion", "evaluate", "promote")
    image = "hospital" if step in DATA or hospital else "mlflow" if light else "federation"
    assert container["image"] == f"registry.example/fedrisk-{image}:abc"


@pytest.mark.parametrize(("step", "hospital"), EVERY)
def test_training_and_nothing_else_is_for_the_training_nodes(
    checkout: Path, step: str, hospital: str | None
) -> None:
    spec = rendered(checkout, step, hospital)["spec"]
    taint = {"key": "fl-training", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    there = step in TRAINING
    assert spec["nodeSelector"] == ({"workload": "federated-learning"} if there else {})
    assert spec["tolerations"] == ([taint] if there else [])


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_template_is_unprivileged_and_writes_to_two_places_only(template: Path) -> None:
    from ruamel.yaml import YAML

    spec = YAML(typ="safe").load(template.read_text())["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/tmp", "/var/lib/fedrisk"}
    for volume in spec["volumes"]:
        given = volume.get("secret", volume.get("projected", {}))
        assert given.get("defaultMode", 0o440) == 0o440


def test_the_servers_name_is_the_one_that_hospitals_are_told(checkout: Path) -> None:
    server, node = rendered(checkout, "federated", None), rendered(checkout, "join", "hospital-2")
    name = hostname_of(RUN)
    assert len(name) <= 63
    assert server["spec"]["hostname"] == name
    assert server["spec"]["subdomain"] == "fedrisk-run"
    where = f"{name}.fedrisk-run.here.svc.cluster.local:9092"
    assert superlink_of(RUN, SETTINGS) == where
    assert variables(server)["FEDRISK_SUPERLINK"] == where
    assert variables(node)["FEDRISK_SUPERLINK"] == where
    assert server["metadata"]["labels"]["fedrisk.io/role"] == "server"
    assert node["metadata"]["labels"]["fedrisk.io/role"] == "hospital"
    assert hostname_of("another") != name


def test_with_a_standing_federation_nobody_is_a_server_or_gets_an_identity(checkout: Path) -> None:
    for step, hospital in (("federated", None), ("join", "hospital-2")):
        found = rendered(checkout, step, hospital, federation="standing")
        assert found["metadata"]["labels"]["fedrisk.io/role"] == "step"
        assert "FEDRISK_SUPERLINK" not in variables(found)
        assert "FEDRISK_IDENTITY" not in variables(found)
        assert variables(found)["FEDRISK_FEDERATION"] == "standing"


def test_only_a_node_key_is_taken_from_a_hospitals_secret_as_a_file(checkout: Path) -> None:
    spec = rendered(checkout, "join", "hospital-1")["spec"]
    (identity,) = (v for v in spec["volumes"] if v["name"] == "identity")
    secret, authority = identity["projected"]["sources"]
    assert secret["secret"]["items"] == [{"key": "node.key", "path": "node.key"}]
    assert authority["configMap"]["name"] == "fedrisk-ca"
    # A whole secret as variables would make the private key one.
    sources = [s for s in spec["containers"][0]["envFrom"] if "secretRef" in s]
    assert sources == []


def test_a_hospitals_own_pod_is_told_of_its_approved_studies_if_it_has_any(checkout: Path) -> None:
    spec = rendered(checkout, "join", "hospital-1")["spec"]
    (told,) = (e for e in spec["containers"][0]["env"] if e["name"] == "FEDRISK_APPROVED")
    where = {"name": "fedrisk-hospital-hospital-1"}
    key = {**where, "key": "FEDRISK_APPROVED", "optional": True}
    assert told["valueFrom"]["configMapKeyRef"] == key
    (volume,) = (v for v in spec["volumes"] if v["name"] == "approved")
    # Without its map no pod starts: a list that is lost must not approve all.
    assert volume["configMap"] == where


def test_the_designs_figures_are_the_default(checkout: Path) -> None:
    def of(step: str, hospital: str | None = None) -> Any:
        return rendered(checkout, step, hospital)["spec"]["containers"][0]["resources"]

    assert of("federated") == {
        "requests": {"cpu": "2", "memory": "4Gi"},
        "limits": {"cpu": "4", "memory": "8Gi"},
    }
    assert of("join", "hospital-1") == {
        "requests": {"cpu": "1", "memory": "2Gi"},
        "limits": {"cpu": "2", "memory": "4Gi"},
    }


def test_a_study_and_the_settings_change_what_pods_get(checkout: Path) -> None:
    changes = [
        "compute.hospital={gpu: 1, node_selector: {workload: null, kind: gpu}, "
        "tolerations: [{key: gpu, operator: Exists}]}",
        "compute.data.limits.memory=3Gi",
    ]
    node = rendered(checkout, "join", "hospital-1", *changes, compute="small")["spec"]
    assert node["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert node["containers"][0]["resources"]["requests"] == {"cpu": "50m", "memory": "768Mi"}
    assert node["nodeSelector"] == {"kind": "gpu"}
    assert node["tolerations"][-1] == {"key": "gpu", "operator": "Exists"}
    data = variables(rendered(checkout, "collect", "hospital-1", *changes, engine="spark"))
    assert data["FEDRISK_ENGINE_MEMORY"] == "1536m"
    assert data["FEDRISK_ENGINE"] == "spark"
    for given in ({"engine": "spark"}, {}):
        spark = rendered(checkout, "collect", "hospital-1", "compute.engine=spark", **given)
        assert spark["spec"]["containers"][0]["image"].endswith("fedrisk-spark:abc")
    trained = rendered(checkout, "local", "hospital-1", "compute.engine=spark")
    assert trained["spec"]["containers"][0]["image"].endswith("fedrisk-hospital:abc")
    study = plan(checkout, *changes).study
    told = limits_of(PodOf("collect", "hospital-1", False), study, SETTINGS)
    assert told == "3Gi (compute.data.limits.memory)"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"store": ""}, "FEDRISK_STORE"),
        ({"store": "file:///runs"}, "FEDRISK_STORE"),
        ({"store": "s3://runs", "compute": "huge"}, "FEDRISK_COMPUTE=huge"),
    ],
)
def test_settings_with_which_no_pod_works_are_refused(settings: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        check_launcher(Settings(launcher="kubernetes", **settings))
    check_launcher(SETTINGS)
