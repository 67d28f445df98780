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

IMAGE = re.compile(r"(?:(?P<registry>\S+)/)?fedrisk-federation:(?P<tag>[A-Za-z0-9_][\w.-]{0,127})")
"""What the chart makes of its values ``images.registry`` and ``images.tag``."""


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


def image_values(image: str) -> dict[str, str]:
    """The chart's values for an image.

    Args:
        image: ``[registry/]fedrisk-federation:TAG``.

    Raises:
        SettingsError: It has another name or no fixed tag, so no chart could start it.
    """
    found = IMAGE.fullmatch(image)
    if found is None or found["tag"] == "latest":
        raise SettingsError(
            f"the image of a SuperNode is {image!r}: expected [REGISTRY/]fedrisk-federation:TAG "
            "with a tag that stays, as `make images` gives it. Set FEDRISK_IMAGES to "
            "'REGISTRY/fedrisk-{image}:TAG'."
        )
    registry = {"registry": found["registry"]} if found["registry"] else {}
    return {**registry, "tag": found["tag"]}


def values(facts: KitFacts) -> str:
    """Values of the chart for the hospital's own cluster.

    Raises:
        SettingsError: The image is none that the chart could start.
    """
    # The chart takes a template alone, so that no two hospitals share a bucket.
    template = facts.lake.startswith("s3a://") and "{hospital}" in facts.lake
    store = {"lake": facts.lake} if template else {}
    if endpoint := facts.settings.get("AWS_ENDPOINT_URL"):
        store["endpoint"] = endpoint
    if region := facts.settings.get("AWS_REGION"):
        store["region"] = region
    hospital = {
        "publicKey": facts.public,
        "supernode": {"enabled": True},
        # None, until the hospital says otherwise: an upgrade without its own file approves none.
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
    """Values of the chart that say which addresses the SuperNode may reach.

    Network policies name addresses, not hosts, and a name's addresses are the hospital's to know:
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
            f"The addresses of {facts.superlink}: put them in and take the # away.",
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
    """An address as a block of its own; empty for a name."""
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    return f"{address}/{address.max_prefixlen}"


def _commented(text: str, why: str) -> str:
    return f"# {why}\n" + "".join(f"#{line}\n" for line in text.splitlines())


def registered_values(name: str, public: str) -> str:
    """Values to add on the consortium's side."""
    return _yaml(
        {"hospitals": {name: {"publicKey": public}}},
        f"For the consortium's release of the chart: lets {name} join. Where the SuperLink admits "
        "known addresses only\n(networkPolicy.superlink.from, "
        "superlink.service.loadBalancerSourceRanges), the hospital's go there too.",
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

    Docker would make a folder, root's own, of one that is not there yet, as ``node.key`` before the
    hospital has put it in its place.
    """
    return {
        "type": "bind",
        "source": f"./{name}",
        "target": target,
        "read_only": True,
        "bind": {"create_host_path": False},
    }


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
    # Process substitution: a key on the command line is seen by everybody on the machine.
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    secret_how = (
        ". ./credentials.env\nkubectl -n fedrisk create secret generic \\\n"
        f"    fedrisk-hospital-{facts.name} --from-file=node.key"
        + "".join(f' \\\n    --from-file={key}=<(printf %s "${key}")' for key in keys)
    )
    return f"""\
# Start-up kit of {facts.name}

With this folder {facts.name} joins the federation at `{facts.superlink}`. The SuperNode reads the
hospital's table in the hospital's own store, trains, and sends model updates and counts. Only this
hospital opens the connection; nothing connects to it.

The steps before training (from the raw table to features, `docs/steps.md`) run where the consortium
agreed to run them, with the key of this hospital's store: whoever has that key can read its rows.

1. {own}
2. `credentials.env`: the key of this hospital's own store, `AWS_ACCESS_KEY_ID=...` and
   `AWS_SECRET_ACCESS_KEY=...`, one a line (mode 600). `hospital.env` has address and lake.
3. `approved.yaml`: name the studies whose federated model may be trained on the hospital's rows.
   It names none yet.
4. Check: `./check.sh`, and with a study and the hospital's table
   `./check.sh --study stroke.yaml --source table.csv`. It says what is missing and what to do.
5. Start the SuperNode, in a cluster (bash, in this folder, with fedrisk's chart as `$CHART`; first
   say in `network.values.yaml` which addresses the SuperLink and the store have)

```
kubectl create namespace fedrisk
{secret_how}
helm upgrade --install fedrisk "$CHART" -n fedrisk -f values.yaml -f network.values.yaml \\
    --set-file hospitals.{facts.name}.approved=approved.yaml
```

   or with Docker: `FEDRISK_USER=$(id -u):$(id -g) docker compose up -d --wait`.

Outgoing TCP to `{facts.superlink}` and to the hospital's own store is all that it needs. The clock
should be right within 5 s (NTP): the SuperLink refuses a signature from further ahead, and one that
is minutes old. It re-joins by itself after a restart of either side.

| file | what | secret |
| --- | --- | --- |
| `node.key`, `node.pub` | identity | `node.key` |
| `ca.crt` | whom to believe that it is the SuperLink | no |
| `hospital.env`, `credentials.env` | settings; key of the store | `credentials.env` |
| `values.yaml`, `network.values.yaml` | for Kubernetes | no |
| `compose.yaml` | for Docker Compose | no |
| `approved.yaml` | approved studies | no |
| `check.sh` | the check | no |
"""
