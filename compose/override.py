"""Write the compose override of new hospitals: ``python compose/override.py NAME... >FILE``.

It only adds services, networks and volumes (a gate, a SuperNode, a network and two volumes each),
so a running stack needs no restart: ``docker compose -f docker-compose.yaml -f FILE up --detach
--wait``. It runs on any Python without the project's environment.
"""

from __future__ import annotations

import re
import sys

NAME = re.compile(r"[a-z]([a-z0-9-]{0,33}[a-z0-9])?")
"""As ``tasks.onboarding.keys.NAME``: names of the bucket, the store's key and the pods."""
OWNERS = frozenset({"admin", "consortium", "pool"})
"""As ``tasks.study.base.RESERVED_NAMES``: the store's keys that belong to no hospital."""
STACK = frozenset(
    {"airflow", "credentials", "default", "federation", "hospital-1", "hospital-2", "hospital-3"}
    | {"logs", "mlflow", "mlflow-uri", "outside", "postgres", "postgres-passwords", "registered"}
    | {"runs", "s3", "s3-data", "sign-in", "superlink"}
)
"""Networks and volumes of ``docker-compose.yaml``, with ``NAME-identity`` for the identities of
hospitals and SuperLink: a hospital of such a name would share that network or volume."""
IDENTITY = "-identity"
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


def fault(name: str) -> str | None:
    """Why a hospital may not have this name; None if it may."""
    if not NAME.fullmatch(name):
        return (
            "expected lower-case letters, digits and '-', a letter first and no '-' last, 35 "
            "characters at most"
        )
    if name in OWNERS:
        return "is another owner's key of the store"
    if name in STACK or name.endswith(IDENTITY):
        return "is a network or a volume of the stack"
    return None


def override(names: list[str]) -> str:
    """The override of some hospitals.

    Args:
        names: Their names.

    Raises:
        SystemExit: A name is not valid or given twice, or there is none.
    """
    faults = [f"hospital {name!r}: {why}." for name in names if (why := fault(name))]
    faults += [f"hospital {n!r}: given twice." for n in set(names) if names.count(n) > 1]
    if not names:
        faults.append("no hospital: expected their names.")
    if faults:
        sys.exit("\n".join(faults))
    keys = "".join(f"      - {name}-identity:/keys/hospitals/{name}\n" for name in names)
    services = "".join(SERVICES.format(name=name) for name in names)
    # No route out of the machine; only the hospital and its gate are in it.
    networks = "".join(f"  {name}: {{internal: true}}\n" for name in names)
    volumes = "".join(f"  {name}-identity:\n  {name}:\n" for name in names)
    return f"{KEYS}{keys}{services}\nnetworks:\n{networks}\nvolumes:\n{volumes}"


if __name__ == "__main__":
    print(override(sys.argv[1:]), end="")
