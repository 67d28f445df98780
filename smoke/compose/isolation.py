"""What a hospital of the stack must not be able to do, tried from its own container."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from smoke.command import StackError, call
from smoke.compose.stack import Project
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
"""Who may reach them: a port that nobody reaches would show nothing."""
LISTEN = "import socket,time; s=socket.create_server(('0.0.0.0', 7000)); time.sleep(120)"
ASK = """
import ssl, urllib.request, urllib.error
trust = ssl.create_default_context(cafile="/run/identity/ca.crt")
for path in ("control/list-nodes", "runtime/x", "fleet/x"):
    asked = urllib.request.Request("https://fedrisk-superlink:9092/v1/" + path, b"")
    try:
        code = urllib.request.urlopen(asked, timeout=10, context=trust).status
    except urllib.error.HTTPError as error:
        code = error.code
    print(path, code)
"""
STORE = """
from tasks.errors import FedriskError
from tasks.objects import get, keys, put, remove
def tried(name, work):
    try:
        work()
        print(name, "allowed")
    except FedriskError as error:
        print(name, "refused:", error)
own, other = "s3://fl-demo-data-hospital-1", "s3://fl-demo-data-hospital-2"
tried("own-write", lambda: (put(own, "smoke", b"1"), get(own, "smoke"), remove(own, "smoke")))
tried("other-list", lambda: list(keys(other, "runs")))
tried("other-read", lambda: get(other, "smoke"))
tried("other-write", lambda: put(other, "smoke", b"1"))
tried("runs-write", lambda: put("s3://fedrisk-runs", "consortium/requests/x.json", b"{}"))
"""
STRANGER = """
set -u
mkdir /tmp/own; cp /run/identity/ca.crt /tmp/own
python -c 'from pathlib import Path
from tasks.federation.deployment.certificates import make_node_key
make_node_key(Path("/tmp/own"))'
export FEDRISK_IDENTITY=/tmp/own FEDRISK_HOME=/tmp/home
python -m tasks.federation.standing supernode --hospital stranger >/tmp/said 2>&1 &
node=$!
for _ in $(seq 600); do
  [ "$(grep -c 'it is started again' /tmp/said)" -ge 2 ] && break
  kill -0 "$node" 2>/dev/null || break
  sleep .5
done
kill "$node"
wait "$node"
cat /tmp/said
tail -n 3 /tmp/home/federation/stranger/supernode.log
"""


def look(table: Table, stack: Project) -> None:
    """Check all of it.

    Args:
        table: Gets the checks.
        stack: The stack, which is up.
    """
    parts: list[Callable[[Table, Project], None]] = [_network, _superlink, _store, _container]
    for part in parts:
        part(table, stack)
    stranger(table, stack)


def _reach(stack: Project, service: str, *targets: str) -> dict[str, str]:
    done = stack.inside(service, "python", "-c", REACH, *targets, deadline=120)
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
    # By name, which tells nothing of who listens under another; then each container's addresses.
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

    # It was only just told to listen.
    until("the gate reaches its hospital", near, 300)
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


def _superlink(table: Table, stack: Project) -> None:
    done = stack.inside(ONE, "python", "-c", ASK)
    codes = dict(line.split() for line in done.stdout.splitlines())
    closed = codes.get("control/list-nodes") == codes.get("runtime/x") == "403"
    table.check(
        "control-closed",
        "the SuperLink's control API is closed to a hospital, its fleet API is not",
        closed and codes.get("fleet/x") not in ("403", None),
        codes or done.stderr[-200:],
    )


def _store(table: Table, stack: Project) -> None:
    done = stack.python(ONE, STORE)
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    table.check(
        "own-bucket",
        "a hospital's key opens its own bucket",
        told.get("own-write") == "allowed",
        done.stderr,
    )
    refused = [name for name in told if told[name].startswith("refused")]
    table.check(
        "other-bucket",
        "and is refused at another's, and where runs are handed over",
        sorted(refused) == ["other-list", "other-read", "other-write", "runs-write"],
        ", ".join(refused),
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
    told = " ".join(stack.inside(ONE, "sh", "-c", script).stdout.split())
    table.check(
        "user",
        "it runs as user 1000, without capabilities, on a read-only root",
        "Uid: 1000" in told
        and "CapEff: 0000000000000000" in told
        and "NoNewPrivs: 1" in told
        and "Read-only file system" in told,
        told,
    )


def stranger(table: Table, stack: Project) -> None:
    """A SuperNode with a key that nobody has registered."""
    name = f"{stack.name}-stranger"
    try:
        done = stack.compose(
            *("run", "--rm", "--no-deps", "--no-TTY", "--name", name, ONE, "sh", "-c", STRANGER),
            deadline=420,
            check=False,
        )
    finally:
        call("docker", "rm", "--force", "--volumes", name, check=False)
    told = done.stdout + done.stderr
    table.check(
        "stranger",
        "a SuperNode without a registered key is turned away, each time it tries",
        told.count("it is started again") >= 2 and "has joined" not in told,
        told.strip()[-200:],
    )
