"""What a hospital must not be able to do, tried by programs in its own pod or container."""

from __future__ import annotations

import json
from typing import Any

from smoke.table import Table

OWN, OTHER = "hospital-1", "hospital-2"
PROBE = """
import json, os, pathlib, socket, ssl, urllib.request, urllib.error
from tasks.objects import get, keys, put
from tasks.errors import FedriskError
def tried(work):
    try:
        return ["done", str(work())[:80]]
    except FedriskError as error:
        return ["refused", str(error)]
def asked(path):
    trust = ssl.create_default_context(cafile=os.environ["FEDRISK_IDENTITY"] + "/ca.crt")
    request = urllib.request.Request("https://fedrisk-superlink:9092/v1/" + path, b"")
    try:
        with urllib.request.urlopen(request, timeout=20, context=trust) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
def ports():
    # At the last one gRPC asks for a certificate, where no network policy is before it.
    found = []
    for port in (8888, 18888, 9333, 19333, 8080, 18080):
        try:
            socket.create_connection((STORE, port), timeout=3).close()
            found.append(f"{port} is open")
        except OSError:
            pass
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        channel = context.wrap_socket(socket.create_connection((STORE, 18333), timeout=5))
        channel.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")
        found.append(f"18333 answers {channel.recv(100)!r}")
    except ssl.SSLError as error:
        if error.reason is None or "CERTIFICATE_REQUIRED" not in error.reason:
            found.append(f"18333: {error}")
    except OSError:
        pass
    return found
lake = "s3://fl-demo-data-"
print("PROBE" + json.dumps({
    "own-bucket": tried(lambda: put(lake + OWN, "probe", b"x") or get(lake + OWN, "probe")),
    "own-prefix": tried(lambda: put("s3://fedrisk-runs", OWN + "/probe", b"x")),
    "list-other": tried(lambda: list(keys(lake + OTHER, "stroke"))),
    "read-other": tried(lambda: get(lake + OTHER, "probe")),
    "write-other": tried(lambda: put(lake + OTHER, "probe", b"x")),
    "write-prefix": tried(lambda: put("s3://fedrisk-runs", OTHER + "/probe", b"x")),
    "write-consortium": tried(lambda: put("s3://fedrisk-runs", "consortium/probe", b"x")),
    "token": [str(p) for p in pathlib.Path("/var/run/secrets").glob("**/token")],
    "other key": [k for k in os.environ if "SECRET" in k and k != "AWS_SECRET_ACCESS_KEY"],
    "ports": ports() if STORE else [],
    "control": {path: asked(path) for path in ("control/list-nodes", "runtime/x", "fleet/x")},
}))
"""
STRANGER = """
import os, pathlib, shutil, subprocess, sys
from tasks.federation.deployment.certificates import make_node_key
own = pathlib.Path("/tmp/own"); own.mkdir(mode=0o700)
make_node_key(own)
shutil.copy(os.environ["FEDRISK_IDENTITY"] + "/ca.crt", own)
os.environ.update(FEDRISK_IDENTITY=str(own), FEDRISK_HOME="/tmp/home")
command = [sys.executable, "-m", "tasks.federation.standing", "supernode"]
node = subprocess.Popen([*command, "--hospital", "stranger"], stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT, text=True)
tries = 0
for line in node.stdout:
    tries += "it is started again" in line
    if "has joined" in line or tries == 2:
        break
print("STRANGER", "refused" if tries == 2 else f"not refused: {line}", flush=True)
node.terminate(); node.wait(30)
"""


def probe(store: str = "") -> str:
    """The program that ``OWN`` runs to get at what is ``OTHER``'s.

    Args:
        store: Address of the store's own machine, whose inner ports are tried too.
    """
    return f"OWN, OTHER, STORE = {OWN!r}, {OTHER!r}, {store!r}\n{PROBE}"


def check_probe(table: Table, printed: str) -> dict[str, Any]:
    """Check what the program has found.

    Returns:
        All that it has found; nothing if it could not ask.
    """
    line = next((x for x in printed.splitlines() if x.startswith("PROBE")), "")
    if not table.check("asks", "a hospital can ask", bool(line), "" if line else printed[-500:]):
        return {}
    found: dict[str, Any] = json.loads(line.removeprefix("PROBE"))
    for name, words in (
        ("own-bucket", "its own bucket is open to it"),
        ("own-prefix", "its own part of the runs is open to it"),
    ):
        table.check(name, words, found[name][0] == "done", found[name])
    for name, words in (
        ("list-other", "another hospital's bucket cannot be listed"),
        ("read-other", "another hospital's object cannot be read"),
        ("write-other", "nothing can be written to another hospital's bucket"),
        ("write-prefix", "nothing can be written to another hospital's part of the runs"),
        ("write-consortium", "nothing can be written to the consortium's part of the runs"),
    ):
        refused = found[name][0] == "refused" and "key may not" in found[name][1]
        table.check(name, words, refused, found[name][1])
    closed = found["control"]
    table.check(
        "control-closed",
        "the SuperLink's control API is closed to it, its fleet API is not",
        closed["control/list-nodes"] == closed["runtime/x"] == 403 != closed["fleet/x"],
        closed,
    )
    return found


def check_stranger(table: Table, printed: str) -> None:
    """Check that a SuperNode with an unregistered key was turned away."""
    line = next((x for x in printed.splitlines() if x.startswith("STRANGER")), "")
    table.check(
        "stranger",
        "a SuperNode without a registered key is turned away, each time it tries",
        line == "STRANGER refused",
        line or printed[-500:],
    )
