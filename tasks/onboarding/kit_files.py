"""The text files of a hospital's start-up kit."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from tasks.errors import SettingsError

IMAGE = re.compile(r"(?:(?P<registry>\S+)/)?fedrisk-hospital:(?P<tag>[A-Za-z0-9_][\w.-]{0,127})")
"""The image name that the chart builds of ``images.registry`` and ``images.tag``."""


@dataclass(frozen=True)
class KitFacts:
    """The contents of a kit.

    Attributes:
        name: The hospital's name.
        superlink: ``host:port`` of the SuperLink.
        public: The hospital's public key in OpenSSH's format.
        authority: The certificate authority's certificate, PEM.
        image: The image of a SuperNode.
        lake: Root of the hospital's lake; ``{hospital}`` stands for its name.
        private: The private key, OpenSSH's PEM; empty where the hospital has its own.
        settings: ``AWS_*`` that are not secret: endpoint, region.
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


def image_values(image: str) -> dict[str, str]:
    """The chart's values for an image.

    Args:
        image: ``[registry/]fedrisk-hospital:TAG``.

    Raises:
        SettingsError: The chart cannot use it: another name or no fixed tag.
    """
    found = IMAGE.fullmatch(image)
    if found is None or found["tag"] == "latest":
        raise SettingsError(
            f"the image of a SuperNode is {image!r}: expected [REGISTRY/]fedrisk-hospital:TAG "
            "with a fixed tag, as `make images` sets it. Set FEDRISK_IMAGES to "
            "'REGISTRY/fedrisk-{image}:TAG'."
        )
    registry = {"registry": found["registry"]} if found["registry"] else {}
    return {**registry, "tag": found["tag"]}


def values(facts: KitFacts) -> str:
    """Values of the chart for the hospital's own cluster.

    Raises:
        SettingsError: The chart cannot use the image.
    """
    # The chart accepts only a template, so that hospitals cannot share a bucket.
    template = facts.lake.startswith("s3a://") and "{hospital}" in facts.lake
    store = {"lake": facts.lake} if template else {}
    if endpoint := facts.settings.get("AWS_ENDPOINT_URL"):
        store["endpoint"] = endpoint
    if region := facts.settings.get("AWS_REGION"):
        store["region"] = region
    hospital = {
        "publicKey": facts.public,
        "supernode": {"enabled": True},
        # No study is approved by default: an upgrade without the hospital's file approves none.
        "approved": "studies: []\n",
    }
    tree = {
        "images": image_values(facts.image),
        "superlink": {"enabled": False, "address": facts.superlink},
        "mlflow": {"enabled": False},
        "airflow": {"enabled": False},
        "tls": {"mode": "existing", "caCertificate": LiteralScalarString(facts.authority)},
        "settings": {"federation": "standing"},
        "training": {"dedicatedNodes": False},
        "hospitals": {facts.name: hospital},
        **({"store": store} if store else {}),
    }
    return _yaml(tree, "Values of the chart fedrisk for this hospital's own cluster (README.md).")


def network_values(facts: KitFacts) -> str:
    """Values of the chart with the addresses that the SuperNode may reach.

    Network policies take addresses, not host names, and only the hospital can resolve its names:
    they are filled in here only where the kit was given addresses.
    """
    endpoint = urlsplit(facts.settings.get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com"))
    port = endpoint.port or (80 if endpoint.scheme == "http" else 443)
    superlink = _block(facts.superlink.rpartition(":")[0].strip("[]"))
    store = _block(endpoint.hostname or "")
    rule = {"to": [{"ipBlock": {"cidr": store or "203.0.113.0/28"}}], "ports": [{"port": port}]}
    example = _yaml({"hospitals": {facts.name: {"store": [rule]}}})
    tree: dict[str, Any] = {"networkPolicy": {"superlink": {"cidrs": [superlink]}}}
    text = (
        _yaml(tree)
        if superlink
        else _commented(
            _yaml({"networkPolicy": {"superlink": {"cidrs": ["198.51.100.10/32"]}}}),
            f"The addresses of {facts.superlink}: fill them in and remove the #.",
        )
    )
    text += (
        example
        if store
        else _commented(
            example, f"The addresses of this hospital's own store ({endpoint.netloc}), likewise."
        )
    )
    return (
        "# Values of the chart fedrisk: what this hospital's pods may reach, and nothing else.\n"
        + text
    )


def _block(host: str) -> str:
    """An address as a CIDR block; empty for a host name."""
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    return f"{address}/{address.max_prefixlen}"


def _commented(text: str, why: str) -> str:
    return f"# {why}\n" + "".join(f"#{line}\n" for line in text.splitlines())


def registered_values(name: str, public: str) -> str:
    """Values to add to the consortium's release."""
    return _yaml(
        {"hospitals": {name: {"publicKey": public}}},
        f"For the consortium's release of the chart: lets {name} join. Where the SuperLink admits "
        "known addresses only\n(networkPolicy.superlink.from, "
        "superlink.service.loadBalancerSourceRanges), add the hospital's there.",
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
        # The owner of node.key, who alone may read it.
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
            _file("node.key", f"{identity}/node.key"),
            _file("ca.crt", f"{identity}/ca.crt"),
            _file("approved.yaml", approved),
        ],
    }
    tree = {
        "name": f"fedrisk-{facts.name}",
        "services": {"supernode": service},
        "volumes": {"state": {}},
    }
    return _yaml(tree, "One SuperNode: docker compose up -d --wait (README.md).")


def _file(name: str, target: str) -> dict[str, Any]:
    """A file of the kit in the container.

    Docker would create a missing source, such as ``node.key`` before the hospital has copied it, as
    a folder of root's.
    """
    return {
        "type": "bind",
        "source": f"./{name}",
        "target": target,
        "read_only": True,
        "bind": {"create_host_path": False},
    }


def environment(variables: Mapping[str, str]) -> str:
    """A file of variables, one per line."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def settings(facts: KitFacts) -> dict[str, str]:
    """The settings of the hospital's SuperNode; none is secret."""
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
#     - name: stroke                  # any terms
#     - name: heart                   # these terms only; the study is refused once they change
#       digest: sha256:...            # as printed by fedrisk hospital check --study heart.yaml
studies: []
"""

CHECK = """\
#!/bin/sh
# Lists what this hospital still lacks. Arguments: --study FILE --source FILE --json
set -eu
kit=$(cd "$(dirname "$0")" && pwd)
if command -v fedrisk >/dev/null 2>&1; then
    exec fedrisk hospital check --kit "$kit" "$@"
fi
# Files given with --study and --source must be in the kit's folder, with paths relative to it.
exec docker run --rm --network host --user "$(id -u):$(id -g)" --volume "$kit:/kit:ro" \\
    --workdir /kit --tmpfs /tmp --env FEDRISK_HOME=/tmp/fedrisk \\
    "${{FEDRISK_IMAGE:-{image}}}" fedrisk hospital check --kit /kit "$@"
"""


def readme(facts: KitFacts) -> str:
    """The kit's README."""
    own = (
        "`node.key` is this hospital's identity. Anyone who has it can impersonate the hospital: "
        "keep it here, and inform the consortium if it is lost."
        if facts.private
        else "Put the private key that belongs to `node.pub` here as `node.key` (mode 600). It "
        "never has to leave the hospital."
    )
    # Process substitution: every user of the machine can see a key on the command line.
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    secret_how = (
        ". ./credentials.env\nkubectl -n fedrisk create secret generic \\\n"
        f"    fedrisk-hospital-{facts.name} --from-file=node.key"
        + "".join(f' \\\n    --from-file={key}=<(printf %s "${key}")' for key in keys)
    )
    return f"""\
# Start-up kit of {facts.name}

With this folder {facts.name} joins the federation at `{facts.superlink}`. The SuperNode reads the
hospital's table in the hospital's own store, trains, and sends model updates and counts. The
connection is opened from this side; the SuperNode accepts no connections.

The steps before training (from the raw table to features, `docs/steps.md`) run where the consortium
agreed to run them, with the key of this hospital's store: anyone with that key can read its rows.

1. {own}
2. `credentials.env`: the key of this hospital's own store, `AWS_ACCESS_KEY_ID=...` and
   `AWS_SECRET_ACCESS_KEY=...`, one per line (mode 600). `hospital.env` has address and lake.
3. `approved.yaml`: list the studies whose federated model may be trained on the hospital's rows.
   It lists none yet.
4. Check: `./check.sh`, and with a study and the hospital's table
   `./check.sh --study stroke.yaml --source table.csv`. It lists what is missing and what to do.
5. Start the SuperNode, in a cluster (bash, in this folder, with fedrisk's chart as `$CHART`; first
   fill in the addresses of the SuperLink and the store in `network.values.yaml`)

```
kubectl create namespace fedrisk
{secret_how}
helm upgrade --install fedrisk "$CHART" -n fedrisk -f values.yaml -f network.values.yaml \\
    --set-file hospitals.{facts.name}.approved=approved.yaml
```

   or with Docker: `FEDRISK_USER=$(id -u):$(id -g) docker compose up -d --wait`.

It only needs outgoing TCP to `{facts.superlink}` and to the hospital's own store. The clock must
be right within 5 s (NTP): the SuperLink refuses a signature from further in the future, and one
that is minutes old. The SuperNode rejoins by itself after a restart of either side.

| file | what | secret |
| --- | --- | --- |
| `node.key`, `node.pub` | identity | `node.key` |
| `ca.crt` | authority that signs the SuperLink's certificate | no |
| `hospital.env`, `credentials.env` | settings; key of the store | `credentials.env` |
| `values.yaml`, `network.values.yaml` | for Kubernetes | no |
| `compose.yaml` | for Docker Compose | no |
| `approved.yaml` | approved studies | no |
| `check.sh` | the check | no |
"""
