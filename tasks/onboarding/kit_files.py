"""The text files of a hospital's start-up kit."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString


@dataclass(frozen=True)
class KitFacts:
    """What a kit says.

    Attributes:
        name: The hospital's.
        superlink: ``host:port`` of the SuperLink.
        public: The hospital's public key in OpenSSH's form.
        authority: The certificate authority's certificate, PEM.
        image: The image of a SuperNode.
        lake: Root of the hospital's lake; ``{hospital}`` stands for its name.
        private: The private key, OpenSSH's PEM; empty where the hospital has its own.
        settings: ``AWS_*`` that are no secret: endpoint, region.
        credentials: ``AWS_*`` of the hospital's own key.
    """

    name: str
    superlink: str
    public: str
    authority: str
    image: str
    lake: str
    private: str = field(default="", repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)


def _yaml(tree: Any, comment: str = "") -> str:
    yaml, output = YAML(), io.StringIO()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(tree, output)
    return "".join(f"# {line}\n" for line in comment.splitlines()) + output.getvalue()


def values(facts: KitFacts) -> str:
    """Values of the chart for the hospital's own cluster."""
    # The chart takes a template alone, so that no two hospitals share a bucket.
    template = facts.lake.startswith("s3a://") and "{hospital}" in facts.lake
    store = {"lake": facts.lake} if template else {}
    if endpoint := facts.settings.get("AWS_ENDPOINT_URL"):
        store["endpoint"] = endpoint
    if region := facts.settings.get("AWS_REGION"):
        store["region"] = region
    tree = {
        "superlink": {"enabled": False, "address": facts.superlink},
        "mlflow": {"enabled": False},
        "airflow": {"enabled": False},
        "tls": {"mode": "existing", "caCertificate": LiteralScalarString(facts.authority)},
        "settings": {"federation": "standing"},
        "training": {"dedicatedNodes": False},
        "hospitals": {facts.name: {"publicKey": facts.public, "supernode": {"enabled": True}}},
        **({"store": store} if store else {}),
    }
    return _yaml(tree, "Values of the chart fedrisk for this hospital's own cluster (README.md).")


def registered_values(name: str, public: str) -> str:
    """Values to add on the consortium's side."""
    return _yaml(
        {"hospitals": {name: {"publicKey": public}}},
        f"For the consortium's release of the chart: lets {name} join.",
    )


def secret(facts: KitFacts) -> str:
    """The Kubernetes secret of the hospital: node key and key of its store."""
    return _yaml(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"fedrisk-hospital-{facts.name}"},
            "type": "Opaque",
            "stringData": {"node.key": LiteralScalarString(facts.private), **facts.credentials},
        },
        "Secret: this hospital's node key and the key of its store.",
    )


def compose(facts: KitFacts) -> str:
    """A SuperNode under Docker Compose."""
    identity, approved = "/etc/fedrisk/identity", "/etc/fedrisk/approved.yaml"
    service = {
        "image": f"${{FEDRISK_IMAGE:-{facts.image}}}",
        "command": [
            *("python", "-m", "tasks.federation.standing", "supernode"),
            *("--hospital", facts.name),
        ],
        # Whoever owns node.key, which only its owner may read.
        "user": "${FEDRISK_USER:-1000:1000}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "init": True,
        "stop_grace_period": "60s",
        "env_file": ["hospital.env", {"path": "credentials.env", "required": False}],
        "environment": {"FEDRISK_IDENTITY": identity, "FEDRISK_APPROVED": approved},
        "tmpfs": ["/tmp"],
        "volumes": [
            "state:/var/lib/fedrisk",
            f"./node.key:{identity}/node.key:ro",
            f"./ca.crt:{identity}/ca.crt:ro",
            f"./approved.yaml:{approved}:ro",
        ],
    }
    tree = {
        "name": f"fedrisk-{facts.name}",
        "services": {"supernode": service},
        "volumes": {"state": {}},
    }
    return _yaml(tree, "One SuperNode: docker compose up -d --wait (README.md).")


def environment(variables: Mapping[str, str]) -> str:
    """A file of variables, one a line."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def settings(facts: KitFacts) -> dict[str, str]:
    """The settings of the hospital's SuperNode, none of them secret."""
    return {
        "FEDRISK_FEDERATION": "standing",
        "FEDRISK_SUPERLINK": facts.superlink,
        "FEDRISK_LAKE": facts.lake,
        **facts.settings,
    }


APPROVED = """\
# Which studies may use this hospital's rows. The hospital alone edits this file; its SuperNode
# reads it for every run. A study that is not named is refused.
#   studies:
#     - name: stroke                  # whatever the study of that name says
#     - name: heart                   # these terms only; once they change, it is refused
#       digest: sha256:...            # fedrisk hospital check --study heart.yaml tells it
studies: []
"""

CHECK = """\
#!/bin/sh
# Says in plain words what this hospital still lacks. Arguments: --study FILE --source FILE --json
set -eu
kit=$(cd "$(dirname "$0")" && pwd)
if command -v fedrisk >/dev/null 2>&1; then
    exec fedrisk hospital check --kit "$kit" "$@"
fi
# Files named by --study and --source must lie in the kit's folder, named from there.
exec docker run --rm --network host --user "$(id -u):$(id -g)" --volume "$kit:/kit:ro" \\
    --workdir /kit --tmpfs /tmp --env FEDRISK_HOME=/tmp/fedrisk \\
    "${{FEDRISK_IMAGE:-{image}}}" fedrisk hospital check --kit /kit "$@"
"""


def readme(facts: KitFacts) -> str:
    """What the hospital is told."""
    own = (
        "`node.key` is this hospital's identity. Whoever has it can pose as the hospital: keep it "
        "here, and tell the consortium if it is lost."
        if facts.private
        else "Put the private key that belongs to `node.pub` here as `node.key` (mode 600). It has "
        "never left the hospital, and need not."
    )
    secret_how = (
        "kubectl -n fedrisk apply -f secret.yaml"
        if facts.private
        else f"kubectl -n fedrisk create secret generic fedrisk-hospital-{facts.name} \\\n"
        "    --from-file=node.key --from-env-file=credentials.env"
    )
    return f"""\
# Start-up kit of {facts.name}

With this folder {facts.name} joins the federation at `{facts.superlink}`. Rows stay in the
hospital: its SuperNode reads them, trains, and sends model updates and counts. Only this hospital
opens the connection; nothing connects to it.

1. {own}
2. `credentials.env`: the key of this hospital's own store, `AWS_ACCESS_KEY_ID=...` and
   `AWS_SECRET_ACCESS_KEY=...`, one a line (mode 600). `hospital.env` has address and lake.
3. `approved.yaml`: name the studies that may use the hospital's rows. It names none yet.
4. Check: `./check.sh`, and with a study and the hospital's table
   `./check.sh --study stroke.yaml --source table.csv`. It says what is missing and what to do.
5. Start the SuperNode, in a cluster

```
kubectl create namespace fedrisk
{secret_how}
helm install fedrisk helm/fedrisk -n fedrisk -f values.yaml \\
    --set-file hospitals.{facts.name}.approved=approved.yaml
```

   or with Docker: `FEDRISK_USER=$(id -u):$(id -g) docker compose up -d --wait`.

Outgoing TCP to `{facts.superlink}` and to the hospital's own store is all that it needs. The clock
must be right within 5 s (NTP), or the SuperLink refuses its signature. It re-joins by itself
after a restart of either side.

| file | what | secret |
| --- | --- | --- |
| `node.key`, `node.pub` | identity | `node.key` |
| `ca.crt` | whom to believe that it is the SuperLink | no |
| `hospital.env`, `credentials.env` | settings; key of the store | `credentials.env` |
| `values.yaml`, `secret.yaml` | for Kubernetes | `secret.yaml` |
| `compose.yaml` | for Docker Compose | no |
| `approved.yaml` | approved studies | no |
| `check.sh` | the check | no |
"""
