"""Programs that a pod of a hospital runs to try what it must not be able to do."""

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
    trust = ssl.create_default_context(cafile="/etc/fedrisk/identity/ca.crt")
    request = urllib.request.Request("https://fedrisk-superlink:9092/v1/" + path, b"")
    try:
        with urllib.request.urlopen(request, timeout=20, context=trust) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
def ports():
    # gRPC, which the store's parts need, asks for a certificate.
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
        # A network policy that is applied lets nothing through.
        pass
    return found
lake = "s3://fl-demo-data-"
print("PROBE" + json.dumps({
    "own-bucket": tried(lambda: put(lake + OWN, "probe", b"x") or get(lake + OWN, "probe")),
    "own-prefix": tried(lambda: put("s3://fedrisk-runs", OWN + "/probe", b"x")),
    "list-other": tried(lambda: list(keys(lake + OTHER, "stroke"))),
    "read-other": tried(lambda: get(lake + OTHER, "theirs")),
    "write-other": tried(lambda: put(lake + OTHER, "probe", b"x")),
    "write-prefix": tried(lambda: put("s3://fedrisk-runs", OTHER + "/probe", b"x")),
    "write-consortium": tried(lambda: put("s3://fedrisk-runs", "consortium/probe", b"x")),
    "token": [str(p) for p in pathlib.Path("/var/run/secrets").glob("**/token")],
    "other key": [k for k in os.environ if "SECRET" in k and k != "AWS_SECRET_ACCESS_KEY"],
    "ports": ports(),
    "control": {path: asked(path) for path in ("control/list-nodes", "runtime/x", "fleet/x")},
}))
"""
STRANGER = """
import os, pathlib, shutil, subprocess, sys
from tasks.federation.deployment.certificates import make_node_key
own = pathlib.Path("/tmp/own"); own.mkdir(mode=0o700)
key, _ = make_node_key(own)
if key.name != "node.key":
    shutil.move(key, own / "node.key")
shutil.copy("/etc/fedrisk/identity/ca.crt", own / "ca.crt")
os.environ["FEDRISK_IDENTITY"] = str(own)
node = subprocess.Popen([sys.executable, "-m", "tasks.federation.standing", "supernode",
                         "--hospital", sys.argv[1]], stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT, text=True)
tries = 0
for line in node.stdout:
    tries += "it is started again" in line
    if "has joined" in line or tries == 2:
        break
print("STRANGER", "refused" if tries == 2 else f"not refused: {line}", flush=True)
node.terminate(); node.wait(30)
"""
