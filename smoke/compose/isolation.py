"""What a hospital of the stack must not be able to do, tried from its own container."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from smoke.command import StackError, call
from smoke.compose.stack import Project
from smoke.probes import STRANGER, check_probe, check_stranger, probe
from smoke.table import Table
from smoke.waits import until

ONE, OTHER = "supernode-hospital-1", "supernode-hospital-2"
REACH = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def tried(target):
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 4).close()
        return target + " reached"
    except OSError as error:
        return target + f" not reached: {error or 'no answer'}"
# A name that is not there takes its time.
with ThreadPoolExecutor(32) as pool:
    print("\\n".join(pool.map(tried, sys.argv[1:])))
"""
PORTS = {
    "postgres": (5432,),
    "mlflow": (5000,),
    "api-server": (8080,),
    "scheduler": (8974,),
    "superlink": (9092,),
    # Its metrics; those of filer, master and volumes listen on its loopback alone.
    "s3": (8333, 18333, 9327, 8888, 18888, 9333, 19333, 8080, 18080),
    "gate-hospital-2": (9092, 8333),
}
"""What listens in the stack, and where; of the store and the SuperLink a hospital is to reach one
port each, through its own gate and not directly."""
PASSED = 8333
"""What a gate passes on of the store's ports."""
ALLOWED = {
    "api-server": ("postgres:5432", "mlflow:5000", "api-server:8080", "scheduler:8974"),
    "gate-hospital-1": ("superlink:9092", "s3:8333", "s3:9327", "gate-hospital-2:9092"),
}
"""Who may reach them: a port that no service reaches would prove nothing."""
LISTEN = "import socket,time; s=socket.create_server(('0.0.0.0', 7000)); time.sleep(400)"


def look(table: Table, stack: Project) -> None:
    """Check all of it."""
    parts: list[Callable[[Table, Project], None]] = [_network, _container]
    for part in parts:
        part(table, stack)
    asked = stack.python(ONE, probe())
    check_probe(table, asked.stdout + asked.stderr)
    _try_to_join(table, stack)


def _reach(stack: Project, service: str, *targets: str) -> dict[str, str]:
    done = stack.inside(service, "python", "-c", REACH, *targets, deadline=400)
    if done.returncode != 0:
        raise StackError(f"{service}: {done.stderr[-500:]}")
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def _network(table: Table, stack: Project) -> None:
    own = _reach(stack, ONE, "fedrisk-superlink:9092", "s3:8333")
    table.check(
        "own-gate",
        "a hospital reaches the SuperLink and the store",
        set(own.values()) == {"reached"},
        ", ".join(own.values()),
    )
    found = stack.containers()
    for service, targets in ALLOWED.items():
        reached = _reach(stack, service, *targets, *_by_address(found, targets, service))
        missed = [target for target, said in reached.items() if said != "reached"]
        table.check(
            service,
            f"{service} reaches what a hospital must not",
            not missed,
            missed or f"{len(reached)} tried",
        )
    # By name, though a service may listen under another one; then by each container's addresses.
    tried = [f"{name}:{port}" for name, ports in PORTS.items() for port in ports if name != "s3"]
    # The name s3 is the hospital's own gate, which passes on one port.
    tried += ["federation-superlink:9092", *(f"federation-s3:{port}" for port in PORTS["s3"])]
    tried += [f"s3:{port}" for port in PORTS["s3"] if port != PASSED]
    other = _reach(stack, ONE, *tried, *_by_address(found, tried), "192.0.2.1:443")
    table.check(
        "nothing-else",
        "and nothing else, by name or by address, nor another port, nor what lies outside",
        not [name for name, said in other.items() if said == "reached"],
        [name for name, said in other.items() if said == "reached"] or f"{len(other)} tried",
    )
    stack.compose("exec", "--detach", OTHER, "python", "-c", LISTEN)
    address = f"{addresses(found[OTHER])[0]}:7000"

    def near() -> bool:
        return _reach(stack, "gate-hospital-2", address)[address] == "reached"

    # It has only just begun to listen.
    until("the gate reaches its hospital", near, 600)
    far = _reach(stack, ONE, address)[address]
    table.check(
        "other-container",
        "a hospital cannot reach another's container by its address (its own gate can)",
        far != "reached",
        f"gate: reached; hospital-1: {far}",
    )


def addresses(container: dict[str, Any], among: Collection[str] = ()) -> list[str]:
    """A container's addresses.

    Args:
        container: What Docker knows of it.
        among: Only those in these networks; empty for all.
    """
    networks = container["NetworkSettings"]["Networks"]
    return [
        each["IPAddress"]
        for name, each in sorted(networks.items())
        if each["IPAddress"] and (not among or name in among)
    ]


def _by_address(
    found: dict[str, dict[str, Any]], targets: Iterable[str], asker: str = ""
) -> list[str]:
    """The same ports of the same services by address.

    Args:
        found: The stack's containers.
        targets: ``service:port``; names that are no service's are left out.
        asker: Only addresses in a network of this service's.
    """
    among = found[asker]["NetworkSettings"]["Networks"] if asker else {}
    pairs = [target.split(":") for target in targets]
    # The store's ports too, though its name leads a hospital to its gate.
    pairs += [] if asker else [["s3", str(port)] for port in PORTS["s3"]]
    return sorted(
        {
            f"{address}:{port}"
            for name, port in pairs
            if name in found
            for address in addresses(found[name], list(among))
        }
    )


def _container(table: Table, stack: Project) -> None:
    found = stack.containers()
    mine = {each["Name"] for each in found[ONE]["Mounts"] if each["Type"] == "volume"}
    expected = {f"{stack.name}_hospital-1", f"{stack.name}_hospital-1-identity"}
    table.check(
        "own-volumes",
        "a hospital has its own volumes alone",
        mine == expected,
        ", ".join(sorted(mine)),
    )
    script = "grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/self/status; touch /opt/x 2>&1; true"
    status = " ".join(stack.inside(ONE, "sh", "-c", script).stdout.split())
    table.check(
        "user",
        "it runs as user 1000, without capabilities, on a read-only root",
        "Uid: 1000" in status
        and "CapEff: 0000000000000000" in status
        and "NoNewPrivs: 1" in status
        and "Read-only file system" in status,
        status,
    )


def _try_to_join(table: Table, stack: Project) -> None:
    name = f"{stack.name}-stranger"
    command = ["--name", name, ONE, "python", "-c", STRANGER]
    try:
        done = stack.compose(
            *("run", "--rm", "--no-deps", "--no-TTY", *command), deadline=420, check=False
        )
    finally:
        call("docker", "rm", "--force", "--volumes", name, check=False)
    check_stranger(table, done.stdout + done.stderr)
