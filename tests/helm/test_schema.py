"""What the schema of the values refuses, and that it says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helm_chart import API, values_of
from kubernetes_cluster import helm
from ruamel.yaml import YAML

KEY = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQ= hospital-1"
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
PRIVATE = PEM.replace("CERTIFICATE", "EC PRIVATE KEY")
VALUES = ["", "kind", "plain", "eks", "hospital", "everything"]


def hospital(**values: Any) -> dict[str, Any]:
    return {"hospitals": {"hospital-1": values}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"superlnik": {}}, "superlnik"),
    ({"superlink": {"enabld": True}}, "enabld"),
    ({"superlink": {"storage": {"size": "50"}}}, "size"),
    ({"superlink": {"resources": {"requests": {"cpus": "1"}}}}, "cpus"),
    ({"superlink": {"resources": {"limits": {"memory": "4GB"}}}}, "memory"),
    ({"superlink": {"service": {"type": "ExternalName"}}}, "type"),
    ({"superlink": {"address": "https://superlink.example.org:9092"}}, "address"),
    ({"superlink": {"service": {"loadBalancerSourceRanges": ["10.0.0.0"]}}}, "SourceRanges"),
    ({"images": {"tag": "latest"}}, "tag"),
    ({"images": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"hospitals": {"Hospital_1": {}}}, "Hospital_1"),
    ({"hospitals": {"1-hospital": {}}}, "1-hospital"),
    ({"hospitals": {"hospital-": {}}}, "hospital-"),
    ({"hospitals": {"h" * 36: {}}}, "h" * 36),
    ({"hospitals": {"pool": {}}}, "pool"),
    # As these are written here, without quotes, Helm takes them for truth values.
    ({"hospitals": {"no": {}}}, "false"),
    ({"hospitals": {"on": {}}}, "true"),
    ({"hospitals": {"true": {}}}, "true"),
    ({"hospitals": {"null": {}}}, "null"),
    ({"hospitals": {"123": {}}}, "123"),
    ({"global": {"image": "x"}}, "image"),
    ({"images": {"digests": {"mlflow": "sha256:1"}}}, "mlflow"),
    ({"images": {"digests": {"spark": "sha256:" + "0" * 64}}}, "spark"),
    ({"s3": {"image": {"digest": "md5:1"}}}, "digest"),
    ({"clusterDomain": "example.org"}, "clusterDomain"),
    ({"hospitals": {"consortium": {}}}, "consortium"),
    ({"hospitals": ["hospital-1"]}, "hospitals"),
    (hospital(key=KEY), "key"),
    (hospital(publicKey=PRIVATE), "publicKey"),
    (hospital(publicKey="ssh-rsa AAAA"), "publicKey"),
    (hospital(supernode={"replicas": 2}), "replicas"),
    (hospital(store=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]), "ports"),
    (hospital(store=[{"ports": [{"port": 443}]}]), "to"),
    (hospital(store=[{"to": [], "ports": [{"port": 443}]}]), "to"),
    ({"pool": {"source": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}}, "ports"),
    ({"pool": {"store": []}}, "store"),
    ({"tls": {"mode": "none"}}, "mode"),
    ({"tls": {"mode": "cert-manager"}}, "caCertificate"),
    ({"tls": {"mode": "cert-manager", "caCertificate": PEM}}, "issuer"),
    ({"tls": {"mode": "existing", "caCertificate": PRIVATE}}, "caCertificate"),
    ({"tls": {"days": 30}}, "days"),
    ({"tls": {"whenDeleted": "Keep"}}, "whenDeleted"),
    ({"mlflow": {"allowedHosts": ["*"]}}, "allowedHosts"),
    ({"mlflow": {"replicas": 0}}, "replicas"),
    ({"mlflow": {"database": {"uri": "postgresql://u:p@h/d"}}}, "uri"),
    ({"store": {"lake": "s3a://lake/{hospital}"}}, "lake"),
    ({"store": {"runs": "s3a://fedrisk-runs"}}, "runs"),
    ({"store": {"secretAccessKey": "x"}}, "secretAccessKey"),
    ({"settings": {"extra": {"AWS_SECRET_ACCESS_KEY": "x"}}}, "AWS_SECRET_ACCESS_KEY"),
    ({"settings": {"extra": {"FEDRISK_LAKE": "x"}}}, "FEDRISK_LAKE"),
    ({"settings": {"extra": {"PATH": "x"}}}, "PATH"),
    ({"settings": {"federation": "simulated"}}, "federation"),
    ({"s3": {"image": {"tag": "latest"}}}, "tag"),
    ({"volumes": {"whenDeleted": "Keep"}}, "whenDeleted"),
    ({"networkPolicy": {"dns": {"to": []}}}, "dns"),
    ({"networkPolicy": {"mlflow": {"from": [{}]}}}, "from"),
    (
        {
            "networkPolicy": {
                "superlink": {"from": [{"ipBlock": {"cidr": "192.0.2.0/28"}, "podSelector": {}}]}
            }
        },
        "from",
    ),
    ({"networkPolicy": {"store": [{"to": [{"ipBlock": {"cidr": "192.0.2.0"}}]}]}}, "store"),
    ({"superlink": {"service": {"externalTrafficPolicy": "Local"}}}, "service"),
    ({"settings": {"compute": "huge"}}, "compute"),
    ({"airflow": {"subjects": [{"kind": "Pod", "name": "x"}]}}, "kind"),
]


def lint(chart: Path, *options: str, values: str | None = None) -> str:
    given = ["-f", "-"] if values is not None else []
    return helm("lint", "--strict", "--quiet", str(chart), *options, *given, text=values)


@pytest.mark.parametrize("name", VALUES)
def test_every_file_of_values_is_linted_without_a_warning(chart: Path, name: str) -> None:
    lint(chart, *values_of(name))


@pytest.mark.parametrize(("values", "said"), REFUSED, ids=[str(v) for v, _ in REFUSED])
def test_a_bad_value_is_refused_by_name(
    chart: Path, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    path = tmp_path / "values.yaml"
    YAML(typ="safe", pure=True).dump(values, path)
    with pytest.raises(RuntimeError, match="don't meet the specifications of the schema") as error:
        helm("template", "x", str(chart), *API, "-f", str(path))
    assert said in str(error.value)


def test_more_than_one_mlflow_needs_what_it_can_share(chart: Path) -> None:
    for option in ("mlflow.replicas=2", "mlflow.autoscaling.enabled=true"):
        with pytest.raises(RuntimeError, match=r"mlflow\.database\.existingSecret"):
            helm("template", "x", str(chart), *API, *values_of(""), "--set", option)


def test_a_supernode_without_a_superlink_is_told_what_it_needs(chart: Path) -> None:
    options = ["--set", "superlink.enabled=false,hospitals.h.supernode.enabled=true"]
    with pytest.raises(RuntimeError, match=r"superlink\.address"):
        helm("template", "x", str(chart), *API, *values_of(""), *options)


WHOLE = ("storage", "serviceAccount")
"""Definitions of which a default gives every key; of the others it gives what it wants."""


def test_every_value_is_in_the_schema_and_every_key_of_the_schema_has_a_default(
    chart: Path,
) -> None:
    yaml = YAML(typ="safe", pure=True)
    schema = yaml.load((chart / "values.schema.json").read_text())
    defaults = yaml.load((chart / "values.yaml").read_text())

    def closed(node: Any, at: str) -> None:
        if isinstance(node, dict):
            # `then` and its like only narrow what stands beside them.
            if at.rsplit("/", 1)[-1] in ("if", "then", "not"):
                return
            kinds = node.get("type", [])
            if "object" in (kinds if isinstance(kinds, list) else [kinds]):
                assert "additionalProperties" in node, at
                assert node["additionalProperties"] is not True, at
                if "properties" in node:
                    assert node["additionalProperties"] is False, at
            for key, value in node.items():
                closed(value, f"{at}/{key}")
        elif isinstance(node, list):
            for number, value in enumerate(node):
                closed(value, f"{at}/{number}")

    def complete(node: dict[str, Any], default: Any, at: str) -> None:
        name = node.get("$ref", "").rpartition("/")[2]
        if name and name not in WHOLE:
            return
        properties = (schema["definitions"][name] if name else node).get("properties")
        if properties is None:
            return
        assert set(properties) == set(default), at
        for key, value in properties.items():
            complete(value, default[key], f"{at}.{key}")

    closed(schema, "")
    # Helm's own, of which this chart knows none.
    assert schema["properties"].pop("global")["properties"] == {}
    complete(schema, defaults, "")


def test_the_compute_profiles_are_the_programs(chart: Path) -> None:
    from tasks.study.compute import PROFILES

    schema = YAML(typ="safe", pure=True).load((chart / "values.schema.json").read_text())
    compute = schema["properties"]["settings"]["properties"]["compute"]
    assert compute["enum"] == ["", *PROFILES]
