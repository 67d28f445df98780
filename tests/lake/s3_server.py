"""A real S3 store for tests: SeaweedFS from its wheel, one process, with one key per owner.

Also a bare S3 request, for what a key may do is tested by asking and not by reading a policy.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.lake.identities import Key, seaweedfs_identities

REGION = "us-east-1"
START = 400.0
"""Seconds until the store must answer; 3 is usual."""


@dataclass(frozen=True)
class S3Server:
    """A running store.

    Attributes:
        endpoint: Its address.
        keys: The key of each owner, ``admin`` among them.
    """

    endpoint: str
    keys: Mapping[str, Key]

    def environment(self, owner: str) -> dict[str, str]:
        """The variables of a process that acts for an owner."""
        key = self.keys[owner]
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": key.access,
            "AWS_SECRET_ACCESS_KEY": key.secret,
            "AWS_ALLOW_HTTP": "true",
        }

    def request(
        self, owner: str, method: str, path: str, body: bytes = b"", headers: str = ""
    ) -> tuple[int, bytes]:
        """Send a request to the store, signed with an owner's key (AWS Signature Version 4).

        Args:
            owner: Whose key signs.
            method: The HTTP method.
            path: ``/bucket/object?query``, quoted, with the query's names in order.
            body: What to send.
            headers: One more header, ``name: value``, that is signed too.

        Returns:
            Status and answer.
        """
        key = self.keys[owner]
        parts = urllib.parse.urlsplit(self.endpoint + path)
        now = datetime.datetime.now(datetime.UTC)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        digest = hashlib.sha256(body).hexdigest()
        sent = {"host": parts.netloc, "x-amz-content-sha256": digest, "x-amz-date": stamp}
        if headers:
            name, value = headers.split(": ", 1)
            sent[name] = value
        names = ";".join(sorted(sent))
        query = "&".join(part if "=" in part else f"{part}=" for part in parts.query.split("&"))
        canonical = "\n".join(
            [
                method,
                parts.path,
                query if parts.query else "",
                *(f"{name}:{sent[name]}" for name in sorted(sent)),
                "",
                names,
                digest,
            ]
        )
        scope = f"{day}/{REGION}/s3/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        secret = f"AWS4{key.secret}".encode()
        for part in (day, REGION, "s3", "aws4_request"):
            secret = hmac.digest(secret, part.encode(), "sha256")
        signature = hmac.digest(
            secret, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}".encode(), "sha256"
        ).hex()
        sent["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={key.access}/{scope}, SignedHeaders={names}, "
            f"Signature={signature}"
        )
        asked = urllib.request.Request(
            self.endpoint + path, data=body or None, method=method, headers=sent
        )
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def free_ports(count: int) -> list[int]:
    """Free ports; SeaweedFS also uses those 10000 above them."""
    found = list[int]()
    # All stay bound until the last is chosen, so that none is used twice or 10000 above another.
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            if port + 10000 > 65535:
                continue
            second = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 10000))
                found.append(port)
    return found


@contextlib.contextmanager
def s3_server(folder: Path, hospitals: Sequence[str]) -> Iterator[S3Server]:
    """Run a store with the hospitals' buckets and all owners' keys, and stop it.

    Args:
        folder: Where it keeps its files.
        hospitals: Their names.
    """
    owners = ["admin", "pool", "consortium", *hospitals]
    keys = {owner: Key(f"key-of-{owner}", f"secret-of-{owner}-{os.getpid()}") for owner in owners}
    folder.mkdir(parents=True, exist_ok=True)
    identities = folder / "identities.json"
    identities.write_text(json.dumps(seaweedfs_identities(keys, hospitals)))
    (folder / "data").mkdir()
    s3, master, volume, filer = free_ports(4)
    command = [
        str(Path(sys.executable).with_name("weed")),
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        "-master.volumeSizeLimitMB=64",
        f"-volume.port={volume}",
        "-volume.max=0",
        "-volume.preStopSeconds=1",
        f"-filer.port={filer}",
        "-s3",
        f"-s3.port={s3}",
        f"-s3.config={identities}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        server = S3Server(f"http://127.0.0.1:{s3}", keys)
        _await(server, process, folder / "weed.log")
        for bucket in ("fedrisk-runs", *(f"fl-demo-data-{name}" for name in hospitals)):
            status, answer = server.request("admin", "PUT", f"/{bucket}")
            assert status == 200, answer
        yield server
    finally:
        # A graceful shutdown takes 16 s, and these files are no longer needed.
        process.kill()
        process.wait(5)


def _await(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START
    while True:
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(f"{server.endpoint}/healthz", timeout=2).status == 200:
                return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the store does not answer: {log.read_text()[-1000:]}")
        time.sleep(0.1)
