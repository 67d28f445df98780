"""Write the part of the stack that a hospital brings: ``python compose/override.py NAME... >FILE``.

It only adds (a gate, a SuperNode, a network, two volumes), so a stack that runs takes it in without
a restart: ``docker compose -f docker-compose.yaml -f FILE up --detach --wait``.
"""

from __future__ import annotations

import re
import sys

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
KEYS = """\
services:
  keys:
    volumes:
"""
SERVICES = """
  gate-{name}:
    extends: {{file: compose/hospital.yaml, service: gate}}
    networks: {{federation: {{}}, {name}: {{aliases: [fedrisk-superlink, s3]}}}}
  supernode-{name}:
    extends: {{file: compose/hospital.yaml, service: supernode}}
    environment: {{HOSPITAL: {name}, FEDRISK_LAKE: "s3a://fl-demo-data-{name}"}}
    networks: [{name}]
    volumes: ["{name}-identity:/run/identity:ro", "{name}:/var/lib/fedrisk"]
    depends_on:
      keys: {{condition: service_completed_successfully}}
      superlink: {{condition: service_healthy}}
      gate-{name}: {{condition: service_healthy}}
"""


def override(names: list[str]) -> str:
    """The override of some hospitals.

    Args:
        names: Their names.

    Raises:
        SystemExit: A name is not fit for a bucket and a container.
    """
    unfit = [name for name in names if not NAME.fullmatch(name)]
    if unfit or not names:
        sys.exit(f"{', '.join(unfit) or 'no hospital'}: expected small letters, digits, hyphens.")
    keys = "".join(f"      - {name}-identity:/keys/hospitals/{name}\n" for name in names)
    services = "".join(SERVICES.format(name=name) for name in names)
    # Not a way out of the machine, and nobody in it but the hospital and its gate.
    networks = "".join(f"  {name}: {{internal: true}}\n" for name in names)
    volumes = "".join(f"  {name}-identity:\n  {name}:\n" for name in names)
    return f"{KEYS}{keys}{services}\nnetworks:\n{networks}\nvolumes:\n{volumes}"


if __name__ == "__main__":
    print(override(sys.argv[1:]), end="")
