"""What the chart makes of its values."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helm_chart import API, CHART, NAMESPACE, Objects, Render, objects_of, values_of
from kubernetes_cluster import helm

KEY = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQ= {}"
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
VALUES = ["", "kind", "plain", "eks", "hospital", "everything"]
WORKLOADS = ("StatefulSet", "Deployment", "Pod", "Job")


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """The pod specification of everything that starts pods, by name."""
    found = {}
    for (kind, name), item in objects.items():
        if kind in WORKLOADS:
            found[name] = item["spec"] if kind == "Pod" else item["spec"]["template"]["spec"]
    return found


def labels(objects: Objects, name: str) -> dict[str, str]:
    """The labels of a workload's pods."""
    return objects["StatefulSet", name]["spec"]["template"]["metadata"]["labels"]  # type: ignore[no-any-return]


def notes(objects: Objects, name: str) -> dict[str, str]:
    """The annotations of a workload's pods."""
    return objects["StatefulSet", name]["spec"]["template"]["metadata"]["annotations"]  # type: ignore[no-any-return]


def variables(container: dict[str, Any]) -> dict[str, Any]:
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in container.get("env", [])}


def hospitals(number: int, **each: Any) -> dict[str, Any]:
    return {
        "hospitals": {
            f"hospital-{n}": {"publicKey": KEY.format(f"hospital-{n}"), **each}
            for n in range(1, number + 1)
        }
    }


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_is_as_closed_as_the_house_wants(render: Render, name: str) -> None:
    found = pods(render(name))
    assert found
    for pod in found.values():
        assert pod["automountServiceAccountToken"] is False
        # FEDRISK_MLFLOW_PORT and the like would be refused as unknown settings.
        assert pod["enableServiceLinks"] is False
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 1000)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert not container["image"].endswith(":latest")
            assert {"/tmp"} <= {m["mountPath"] for m in container["volumeMounts"]}
            # The whole of a secret would bring node.key into the environment.
            assert not any("secretRef" in source for source in container.get("envFrom", []))


@pytest.mark.parametrize("name", VALUES)
def test_every_service_selects_pods_that_there_are(render: Render, name: str) -> None:
    objects = render(name)
    found = [labels(objects, n) for kind, n in objects if kind == "StatefulSet"]
    for (kind, service), item in objects.items():
        if kind != "Service" or service == "fedrisk-run":
            continue
        wanted = item["spec"]["selector"].items()
        assert len([pod for pod in found if wanted <= pod.items()]) == 1, service


def test_defaults_are_the_designs(render: Render) -> None:
    objects = render(values=hospitals(1, supernode={"enabled": True}))
    sizes = {
        name: item["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
        for (kind, name), item in objects.items()
        if kind == "StatefulSet"
    }
    assert (sizes["fedrisk-superlink"], sizes["fedrisk-mlflow"]) == ("50Gi", "100Gi")
    resources = {n: p["containers"][0]["resources"] for n, p in pods(objects).items()}
    assert resources["fedrisk-superlink"] == {
        "requests": {"cpu": "2", "memory": "4Gi"},
        "limits": {"cpu": "4", "memory": "8Gi"},
    }
    assert resources["fedrisk-hospital-hospital-1"] == {
        "requests": {"cpu": "1", "memory": "2Gi"},
        "limits": {"cpu": "2", "memory": "4Gi"},
    }
    assert resources["fedrisk-mlflow"]["requests"] == {"cpu": "1", "memory": "2Gi"}
    pod = pods(objects)["fedrisk-hospital-hospital-1"]
    assert pod["nodeSelector"] == {"workload": "federated-learning"}
    assert pod["tolerations"] == [
        {"key": "fl-training", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    ]


@pytest.mark.parametrize("number", [4, 10])
def test_more_hospitals_are_more_entries_and_nothing_else(render: Render, number: int) -> None:
    values = hospitals(number, supernode={"enabled": True})
    values["s3"] = {"enabled": True}
    objects = render(values=values)
    names = {f"fedrisk-hospital-hospital-{n}" for n in range(1, number + 1)}
    for kind in ("ServiceAccount", "StatefulSet", "NetworkPolicy", "PodDisruptionBudget"):
        ours = {name for k, name in objects if k == kind and name.startswith("fedrisk-hospital-")}
        assert ours == names, kind
    registered = objects["ConfigMap", "fedrisk-registered"]["data"]
    assert registered == {
        f"hospital-{n}.pub": KEY.format(f"hospital-{n}") for n in range(1, number + 1)
    }
    buckets = objects["ConfigMap", "fedrisk-s3"]["data"]["buckets"].split()
    assert sorted(buckets) == sorted(
        ["fedrisk-runs", *(f"fl-demo-data-hospital-{n}" for n in range(1, number + 1))]
    )


def test_a_hospital_more_restarts_nothing_that_stands(render: Render) -> None:
    def standing(number: int) -> dict[str, Any]:
        values = hospitals(number) | {"s3": {"enabled": True}}
        objects = render(values=values)
        return {k: v["spec"] for k, v in objects.items() if k[0] == "StatefulSet"}

    assert standing(4) == standing(10)


def test_a_supernode_gets_its_own_key_and_no_other(render: Render) -> None:
    objects = render(values=hospitals(3, supernode={"enabled": True}))
    for n in (1, 2, 3):
        name = f"fedrisk-hospital-hospital-{n}"
        pod = pods(objects)[name]
        text = str(pod)
        others = {f"fedrisk-hospital-hospital-{m}" for m in (1, 2, 3)} - {name}
        assert not any(other in text for other in others)
        assert "fedrisk-superlink'" not in text, "its TLS key is the SuperLink's own"
        assert pod["serviceAccountName"] == name
        (identity,) = [v for v in pod["volumes"] if v["name"] == "identity"]
        assert identity["projected"]["sources"] == [
            {"secret": {"name": name, "items": [{"key": "node.key", "path": "node.key"}]}},
            {"configMap": {"name": "fedrisk-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ]
        (container,) = pod["containers"]
        assert container["command"][-2:] == ["--hospital", f"hospital-{n}"]
        env = variables(container)
        assert env["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"]["name"] == name
        assert env["FEDRISK_SUPERLINK"] == "fedrisk-superlink:9092"


def test_an_approved_studies_file_is_mounted_where_it_is_given(render: Render) -> None:
    text = "studies:\n  stroke: any\n"
    values = {"hospitals": {"h": {"supernode": {"enabled": True}, "approved": text}}}
    objects = render(values=values)
    assert (
        objects["ConfigMap", "fedrisk-hospital-h"]["data"]["approved.yaml"].strip() == text.strip()
    )
    (container,) = pods(objects)["fedrisk-hospital-h"]["containers"]
    path = variables(container)["FEDRISK_APPROVED"]
    assert Path(path).parent in {Path(m["mountPath"]) for m in container["volumeMounts"]}


@pytest.mark.parametrize("enabled", [True, False])
def test_what_a_hospital_has_approved_is_there_whoever_trains_for_it(
    render: Render, enabled: bool
) -> None:
    own = {"supernode": {"enabled": enabled}}
    values = {"hospitals": {"h": {**own, "approved": "studies: []"}, "all": own}}
    objects = render(values=values)
    data = objects["ConfigMap", "fedrisk-hospital-h"]["data"]
    assert data["approved.yaml"].strip() == "studies: []"
    assert data["FEDRISK_APPROVED"] == "/etc/fedrisk/approved/approved.yaml"
    # A pod of the launcher starts only where its hospital's map is, even an empty one.
    assert objects["ConfigMap", "fedrisk-hospital-all"]["data"] == {}


def test_service_accounts_of_the_cloud_replace_keys(render: Render) -> None:
    objects = render("eks")
    annotations = {
        name: item["metadata"].get("annotations", {})
        for (kind, name), item in objects.items()
        if kind == "ServiceAccount"
    }
    roles = [
        a.get("eks.amazonaws.com/role-arn") for n, a in annotations.items() if n != "fedrisk-mlflow"
    ]
    assert len(set(roles)) == len(roles) == 6
    assert all(roles)
    for pod in pods(objects).values():
        for container in pod["containers"]:
            assert not {k for k in variables(container) if k.startswith("AWS_")}


def test_settings_are_read_by_the_program_and_hold_no_secret(render: Render) -> None:
    from tasks.settings import Settings

    for name in VALUES:
        objects = render(name)
        data = dict(objects["ConfigMap", "fedrisk-settings"]["data"])
        if ("ConfigMap", "fedrisk-launcher") in objects:
            data |= objects["ConfigMap", "fedrisk-launcher"]["data"]
        settings = Settings.from_environment(data)
        assert settings.lake_root("hospital-1").startswith("s3a://fl-demo-data-hospital-1")
        assert not {k for k in data if "SECRET" in k or "ACCESS_KEY" in k}
    kind = render("kind", options=("--set", "images.tag=abc"))
    assert kind["ConfigMap", "fedrisk-launcher"]["data"]["FEDRISK_IMAGES"] == "fedrisk-{image}:abc"
    assert kind["ConfigMap", "fedrisk-settings"]["data"]["AWS_ALLOW_HTTP"] == "true"
    assert "AWS_ALLOW_HTTP" not in render("plain")["ConfigMap", "fedrisk-settings"]["data"]


def test_the_launcher_may_handle_pods_and_nothing_else(render: Render) -> None:
    subject = {"kind": "ServiceAccount", "name": "scheduler", "namespace": "airflow"}
    objects = render(values={"airflow": {"subjects": [subject]}})
    rules = {
        r: set(rule["verbs"])
        for rule in objects["Role", "fedrisk-pod-launcher"]["rules"]
        for r in rule["resources"]
    }
    assert rules == {
        "pods": {"create", "get", "list", "watch", "patch", "delete"},
        "pods/log": {"get"},
        "events": {"list", "watch"},
    }
    binding = objects["RoleBinding", "fedrisk-pod-launcher"]
    own = {"kind": "ServiceAccount", "name": "fedrisk-airflow", "namespace": NAMESPACE}
    assert binding["subjects"] == [own, subject]
    assert not [k for k in objects if k[0].startswith("Cluster")]
    tokens = {
        n: i["automountServiceAccountToken"]
        for (k, n), i in objects.items()
        if k == "ServiceAccount"
    }
    assert [name for name, mounted in tokens.items() if mounted] == ["fedrisk-airflow"]


def test_the_server_pods_of_runs_have_a_name_before_they_are_ready(render: Render) -> None:
    spec = render()["Service", "fedrisk-run"]["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    assert spec["selector"] == {"fedrisk.io/role": "server"}
    assert spec["ports"][0]["port"] == 9092


def test_the_generated_certificate_names_every_server(render: Render, tmp_path: Path) -> None:
    objects = render(
        options=("--set", "tls.names={superlink.example.org},tls.addresses={192.0.2.7}")
    )
    data = objects["Secret", "fedrisk-superlink"]["data"]
    assert set(data) == {"ca.crt", "tls.crt", "tls.key"}
    for name, content in data.items():
        (tmp_path / name).write_bytes(base64.b64decode(content))
    authority = objects["ConfigMap", "fedrisk-ca"]["data"]["ca.crt"]
    assert authority.strip() == (tmp_path / "ca.crt").read_text().strip()
    names = [
        "fedrisk-superlink",
        *(f"fedrisk-superlink.{NAMESPACE}{end}" for end in ("", ".svc", ".svc.cluster.local")),
        f"run-1.fedrisk-run.{NAMESPACE}.svc.cluster.local",
        "localhost",
        "superlink.example.org",
    ]
    for flag, name in [
        *(("-verify_hostname", n) for n in names),
        *(("-verify_ip", a) for a in ("192.0.2.7", "127.0.0.1")),
    ]:
        command = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", flag, name, "tls.crt"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, (name, done.stderr)
    other = ["openssl", "verify", "-CAfile", "ca.crt", "-verify_hostname", "elsewhere", "tls.crt"]
    assert subprocess.run(other, cwd=tmp_path, capture_output=True, timeout=400).returncode != 0
    mounted = [p for p in pods(objects).values() if "fedrisk-authority" in str(p)]
    assert not mounted, "no pod has the CA's key"


def test_cert_manager_is_asked_for_the_same_names(render: Render) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    tls = {"mode": "cert-manager", "caCertificate": pem, "issuer": {"name": "ours"}}
    objects = render(values={"tls": tls})
    spec = objects["Certificate", "fedrisk-superlink"]["spec"]
    assert spec["secretName"] == "fedrisk-superlink"
    assert spec["ipAddresses"] == ["127.0.0.1"]
    assert f"*.fedrisk-run.{NAMESPACE}.svc.cluster.local" in spec["dnsNames"]
    assert spec["issuerRef"] == {"name": "ours", "kind": "Issuer", "group": "cert-manager.io"}
    assert ("Secret", "fedrisk-superlink") not in objects
    assert objects["ConfigMap", "fedrisk-ca"]["data"]["ca.crt"].strip() == pem.strip()


def test_a_hospital_installs_its_supernode_and_nothing_of_the_consortium(render: Render) -> None:
    objects = render("hospital")
    assert {n for k, n in objects if k == "StatefulSet"} == {"fedrisk-hospital-hospital-1"}
    assert {n for k, n in objects if k == "ServiceAccount"} == {"fedrisk-hospital-hospital-1"}
    assert not {k for k, _ in objects} & {"Role", "RoleBinding", "Service", "Secret"}
    (container,) = pods(objects)["fedrisk-hospital-hospital-1"]["containers"]
    assert variables(container)["FEDRISK_SUPERLINK"] == "superlink.example.org:9092"


def test_mlflow_scales_only_with_a_database_and_artifacts_that_are_shared(render: Render) -> None:
    assert not [k for k in render() if k[0] == "HorizontalPodAutoscaler"]
    mlflow = {
        "database": {"existingSecret": "mlflow-database"},
        "artifacts": {"existingClaim": "mlflow-artifacts"},
        "autoscaling": {"enabled": True},
    }
    database = [{"to": [{"ipBlock": {"cidr": "192.0.2.32/32"}}], "ports": [{"port": 5432}]}]
    objects = render(values={"mlflow": mlflow, "networkPolicy": {"mlflow": {"egress": database}}})
    spec = objects["HorizontalPodAutoscaler", "fedrisk-mlflow"]["spec"]
    assert spec["scaleTargetRef"]["name"] == "fedrisk-mlflow"
    server = objects["StatefulSet", "fedrisk-mlflow"]["spec"]
    assert "replicas" not in server
    assert "volumeClaimTemplates" not in server
    uri = variables(server["template"]["spec"]["containers"][0])["MLFLOW_BACKEND_STORE_URI"]
    assert uri == {"secretKeyRef": {"name": "mlflow-database", "key": "uri"}}


def test_mlflow_makes_its_database_whole_before_its_server_starts(render: Render) -> None:
    (container,) = pods(render())["fedrisk-mlflow"]["containers"]
    script = " ".join(container["command"][2].split())
    assert "python -m tasks.telemetry.database mlflow-artifacts:/ && exec mlflow server" in script


def test_mlflow_answers_to_its_services_names_alone(render: Render) -> None:
    objects = render(values={"mlflow": {"allowedHosts": ["mlflow.example.org"]}})
    (container,) = pods(objects)["fedrisk-mlflow"]["containers"]
    hosts = variables(container)["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert {"fedrisk-mlflow:5000", f"fedrisk-mlflow.{NAMESPACE}.svc:5000"} <= set(hosts)
    assert "mlflow.example.org" in hosts
    assert not any("*" in host for host in hosts)


OPERATOR = ("--api-versions", "monitoring.coreos.com/v1")


def test_monitors_are_made_only_where_the_cluster_knows_them(render: Render) -> None:
    def monitors(*options: str) -> list[str]:
        return [name for kind, name in render("kind", options=options) if kind.endswith("Monitor")]

    assert monitors() == []
    assert sorted(monitors(*OPERATOR)) == ["fedrisk-mlflow", "fedrisk-s3"]
    assert monitors(*OPERATOR, "--set=monitoring.enabled=false") == []


def test_a_monitor_finds_a_service_and_its_port(render: Render) -> None:
    objects = render("kind", options=(*OPERATOR, "--set=monitoring.labels.release=ours"))
    for name in ("fedrisk-mlflow", "fedrisk-s3"):
        monitor, service = objects["ServiceMonitor", name], objects["Service", name]
        assert monitor["metadata"]["labels"]["release"] == "ours"
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [i for (k, _), i in objects.items() if k == "Service"]
        assert [i for i in found if wanted <= i["metadata"]["labels"].items()] == [service]
        (endpoint,) = monitor["spec"]["endpoints"]
        (port,) = [p for p in service["spec"]["ports"] if p["name"] == endpoint["port"]]
        (container,) = pods(objects)[name]["containers"]
        assert port["targetPort"] in {p["name"] for p in container["ports"]}


def test_mlflow_answers_prometheus_under_its_pods_address(render: Render) -> None:
    (container,) = pods(render("kind"))["fedrisk-mlflow"]["containers"]
    assert "--expose-prometheus=/tmp/metrics" in container["args"]
    names = [v["name"] for v in container["env"]]
    # Kubernetes fills in only what stands before.
    assert names.index("POD_IP") < names.index("MLFLOW_SERVER_ALLOWED_HOSTS")
    hosts = variables(container)["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert {"$(POD_IP):5000", "[$(POD_IP)]:5000"} <= set(hosts), "IPv4 and IPv6"
    off = render("kind", options=("--set=monitoring.enabled=false",))
    (container,) = pods(off)["fedrisk-mlflow"]["containers"]
    assert "prometheus" not in str(container["args"])
    assert "POD_IP" not in str(container["env"])


def test_priority_classes_are_made_and_used(render: Render) -> None:
    classes = {"create": True, "standing": {"name": "stand"}, "training": {"name": "train"}}
    objects = render(
        values=hospitals(1, supernode={"enabled": True}) | {"priorityClasses": classes}
    )
    assert {n for k, n in objects if k == "PriorityClass"} == {"stand", "train"}
    found = {n: p.get("priorityClassName") for n, p in pods(objects).items()}
    assert found["fedrisk-superlink"] == found["fedrisk-mlflow"] == "stand"
    assert found["fedrisk-hospital-hospital-1"] == "train"


def test_volumes_stay_unless_the_values_say_otherwise(render: Render) -> None:
    for name, kept in (("plain", "Retain"), ("kind", "Delete")):
        for (kind, _), item in render(name).items():
            if kind == "StatefulSet":
                policy = item["spec"]["persistentVolumeClaimRetentionPolicy"]
                assert policy == {"whenDeleted": kept, "whenScaled": "Retain"}


def test_an_upgrade_replaces_a_pod_that_never_got_ready(render: Render) -> None:
    values = hospitals(2, supernode={"enabled": True}) | {"s3": {"enabled": True}}
    sets = {n: i["spec"] for (k, n), i in render(values=values).items() if k == "StatefulSet"}
    assert len(sets) == 5
    assert {spec["podManagementPolicy"] for spec in sets.values()} == {"Parallel"}


def test_nothing_that_a_statefulset_cannot_change_depends_on_the_version(render: Render) -> None:
    def fixed(*options: str) -> dict[str, Any]:
        values = hospitals(2, supernode={"enabled": True}) | {"s3": {"enabled": True}}
        fields = ("serviceName", "podManagementPolicy", "selector", "volumeClaimTemplates")
        return {
            name: {field: item["spec"].get(field) for field in fields}
            for (kind, name), item in render(values=values, options=options).items()
            if kind == "StatefulSet"
        }

    changed = (
        "images.tag=other,settings.federation=standing,superlink.service.type=LoadBalancer",
        "mlflow.workers=3,podDisruptionBudgets.enabled=false,volumes.whenDeleted=Delete",
    )
    assert fixed() == fixed(*(part for each in changed for part in ("--set", each)))
    assert "helm.sh/chart" not in str(fixed())


def test_secrets_for_images_reach_the_pods_of_steps_by_their_accounts(render: Render) -> None:
    values = hospitals(2, supernode={"enabled": True}) | {"s3": {"enabled": True}}
    objects = render(values=values | {"images": {"pullSecrets": ["registry-1", "123"]}})
    wanted = [{"name": "registry-1"}, {"name": "123"}]
    accounts = {n: i for (k, n), i in objects.items() if k == "ServiceAccount"}
    assert len(accounts) == 6
    assert all(account["imagePullSecrets"] == wanted for account in accounts.values())
    assert all(pod["imagePullSecrets"] == wanted for pod in pods(objects).values())
    assert "imagePullSecrets" not in render("kind")["ServiceAccount", "fedrisk-pool"]


def test_an_image_may_be_held_to_its_content(render: Render) -> None:
    federation, mlflow, s3, hospital = (f"sha256:{letter * 64}" for letter in "abcd")
    values = hospitals(1, supernode={"enabled": True}) | {
        "images": {
            "tag": "t",
            "digests": {"federation": federation, "hospital": hospital, "mlflow": mlflow},
        },
        "s3": {"enabled": True, "image": {"digest": s3}},
    }
    objects = render(values=values)
    images = {name: pod["containers"][0]["image"] for name, pod in pods(objects).items()}
    assert images["fedrisk-superlink"] == f"fedrisk-federation:t@{federation}"
    assert images["fedrisk-hospital-hospital-1"] == f"fedrisk-hospital:t@{hospital}"
    assert images["fedrisk-mlflow"] == images["fedrisk-test-mlflow"] == f"fedrisk-mlflow:t@{mlflow}"
    assert images["fedrisk-s3"] == f"chrislusf/seaweedfs:4.48@{s3}"
    launcher = objects["ConfigMap", "fedrisk-launcher"]["data"]
    assert launcher["FEDRISK_IMAGES"] == "fedrisk-{image}:t"


def test_a_new_version_of_the_chart_alone_restarts_nothing(render: Render) -> None:
    objects = render(values=hospitals(1, supernode={"enabled": True}) | {"s3": {"enabled": True}})
    for (kind, name), item in objects.items():
        if kind == "StatefulSet":
            assert "helm.sh/chart" in item["metadata"]["labels"]
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels(objects, name).keys()


def test_what_a_pod_reads_at_its_start_alone_restarts_it(render: Render) -> None:
    tls = {"mode": "existing", "caCertificate": PEM}
    values = hospitals(1, supernode={"enabled": True}) | {"tls": tls}

    def found(**more: Any) -> dict[str, dict[str, str]]:
        objects = render(values=values | more)
        names = ("fedrisk-superlink", "fedrisk-hospital-hospital-1")
        return {name: notes(objects, name) for name in names}

    before = found()
    standing = found(settings={"federation": "standing"})
    other_ca = found(tls=tls | {"caCertificate": PEM.replace("AAAA", "BBBB")})
    more = hospitals(2, supernode={"enabled": True})
    assert found(**more) == before, "a hospital's key is read again without a restart"
    for name, now in standing.items():
        assert now["fedrisk.io/settings"] != before[name]["fedrisk.io/settings"]
    node = "fedrisk-hospital-hospital-1"
    assert {n for n, now in other_ca.items() if now != before[n]} == {node}
    generated = render(values=hospitals(1, supernode={"enabled": True}))
    authority = generated["ConfigMap", "fedrisk-ca"]["data"]["ca.crt"].rstrip() + "\n"
    assert notes(generated, node)["fedrisk.io/ca"] == hashlib.sha256(authority.encode()).hexdigest()


@pytest.mark.parametrize("name", ["no", "on", "y", "off", "nan", "e1"])
def test_a_hospital_may_be_called_what_yaml_takes_for_something_else(
    render: Render, name: str
) -> None:
    objects = render(values={"hospitals": {name: {"supernode": {"enabled": True}}}})
    full = f"fedrisk-hospital-{name}"
    for item in (objects["StatefulSet", full], objects["ServiceAccount", full]):
        assert item["metadata"]["labels"]["fedrisk.io/hospital"] == name
    assert labels(objects, full)["fedrisk.io/owner"] == name
    assert pods(objects)[full]["containers"][0]["command"][-1] == name
    selector = objects["NetworkPolicy", full]["spec"]["podSelector"]["matchLabels"]
    assert selector["fedrisk.io/owner"] == name


@pytest.mark.parametrize("mode", ["generate", "existing", "cert-manager"])
def test_a_runs_own_federation_has_its_certificate_without_a_superlink(
    render: Render, mode: str
) -> None:
    tls = {"mode": mode, "caCertificate": PEM, "issuer": {"name": "ours"}}
    values = hospitals(2) | {"superlink": {"enabled": False}, "tls": tls}
    objects = render(values=values)
    assert set(objects["ConfigMap", "fedrisk-registered"]["data"]) == {
        "hospital-1.pub",
        "hospital-2.pub",
    }
    assert ("ConfigMap", "fedrisk-ca") in objects
    assert (("Secret", "fedrisk-superlink") in objects) is (mode == "generate")
    assert (("Certificate", "fedrisk-superlink") in objects) is (mode == "cert-manager")
    assert ("StatefulSet", "fedrisk-superlink") not in objects
    # A SuperLink elsewhere has a CA of its own, and that is the one that hospitals here trust.
    elsewhere = {"enabled": False, "address": "192.0.2.9:9092"}
    objects = render(values=values | {"superlink": elsewhere})
    assert ("Secret", "fedrisk-superlink") not in objects
    assert objects["ConfigMap", "fedrisk-ca"]["data"]["ca.crt"].strip() == PEM.strip()


def test_what_was_generated_outlives_a_change_of_mode_unless_the_values_say_otherwise(
    render: Render,
) -> None:
    made = [("Secret", "fedrisk-authority"), ("Secret", "fedrisk-superlink")]
    made.append(("ConfigMap", "fedrisk-ca"))
    policy = "helm.sh/resource-policy"
    for name, kept in (("plain", "keep"), ("kind", None)):
        objects = render(name)
        for key in made:
            found = objects[key]["metadata"].get("annotations", {}).get(policy)
            assert found == kept, key
    given = render(values={"tls": {"mode": "existing", "caCertificate": PEM}})
    assert "annotations" not in given["ConfigMap", "fedrisk-ca"]["metadata"]


def budgets(objects: Objects) -> dict[str, dict[str, Any]]:
    return {name: item["spec"] for (k, name), item in objects.items() if k == "PodDisruptionBudget"}


def test_a_drain_of_a_node_goes_on_unless_the_values_hold_it(render: Render) -> None:
    values = hospitals(2, supernode={"enabled": True}) | {"s3": {"enabled": True}}
    found = budgets(render(values=values))
    standing = {"superlink", "mlflow", "s3", "hospital-hospital-1", "hospital-hospital-2"}
    assert {name.removeprefix("fedrisk-") for name in found} == standing | {"run"}
    for name in standing:
        assert found[f"fedrisk-{name}"]["maxUnavailable"] == 1
    holding = {"podDisruptionBudgets": {"holdStores": True}}
    held = budgets(render(values=values | holding))
    assert {n for n, spec in held.items() if spec.get("minAvailable") == 1} == {
        "fedrisk-mlflow",
        "fedrisk-s3",
    }
    several = render("everything", options=("--set=podDisruptionBudgets.holdStores=true",))
    assert budgets(several)["fedrisk-mlflow"]["maxUnavailable"] == 1


def test_the_pods_of_a_runs_federation_are_not_evicted(
    render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(CHART.parents[1] / "dags"))
    from fedrisk_airflow.kubernetes.pod_spec import PodOf

    objects = render(values=hospitals(1, supernode={"enabled": True}))
    spec = budgets(objects)["fedrisk-run"]
    assert isinstance(spec["minAvailable"], int), "of bare pods Kubernetes takes nothing else"
    (expression,) = spec["selector"]["matchExpressions"]
    wanted = spec["selector"]["matchLabels"].items()

    def kept(found: dict[str, str]) -> bool:
        return wanted <= found.items() and found.get("fedrisk.io/role") in expression["values"]

    assert kept(PodOf("federated", None, standing=False).labels)
    assert kept(PodOf("join", "hospital-1", standing=False).labels)
    assert not kept(PodOf("local", "hospital-1", standing=False).labels)
    assert not kept(labels(objects, "fedrisk-hospital-hospital-1")), "a standing one comes back"
    assert "fedrisk-run" not in budgets(render("hospital"))


@pytest.fixture
def notes_of(chart: Path, tmp_path: Path) -> Callable[..., str]:
    """What an install prints: Helm shows it only once it has a cluster, so a map shows it here."""
    copy = tmp_path / "fedrisk"
    shutil.copytree(chart, copy)
    (copy / "templates" / "NOTES.txt").rename(copy / "files" / "notes.txt")
    (copy / "templates" / "notes.yaml").write_text(
        "kind: Notes\nmetadata: {name: notes}\n"
        'text: {{ tpl (.Files.Get "files/notes.txt") . | toJson }}\n'
    )

    def noted(name: str, *options: str) -> str:
        only = ("--show-only", "templates/notes.yaml")
        said = helm("template", "x", str(copy), "-n", "x", *API, *values_of(name), *options, *only)
        return str(objects_of(said)["Notes", "notes"]["text"])

    return noted


def test_an_install_says_what_airflow_and_the_release_lack(notes_of: Callable[..., str]) -> None:
    kind = notes_of("kind")
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the secret" in kind
    assert "fedrisk-s3-identities (s3.json)" in kind
    assert "delete" not in kind, "nothing stays"
    eks = notes_of("eks")
    assert "needs a role with the consortium's rights" in eks
    assert "delete secret/fedrisk-authority secret/fedrisk-superlink" in eks
    assert "fedrisk-hospital-hospital-1 (node.key)" in eks
    assert "fedrisk-consortium (" not in eks
    # A secret of the certificate is needed whoever serves, and however stores are opened.
    for more in ("", ",superlink.enabled=false"):
        given = notes_of("eks", f"--set=tls.mode=existing{more}")
        assert "fedrisk-superlink (ca.crt, tls.crt, tls.key)" in given
    hospital = notes_of("hospital")
    assert "connect to superlink.example.org:9092" in hospital
    assert "fedrisk-superlink (" not in hospital
    assert "Airflow" not in hospital
