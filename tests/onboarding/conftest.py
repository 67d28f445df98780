"""A federation's certificates and a hospital's kit, made by the commands."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest

from tasks.onboarding import authority
from tasks.onboarding.kit import add_hospital


class Consortium:
    """Folders of the consortium, and kits that it makes."""

    def __init__(self, root: Path) -> None:
        self.root, self.federation, self.registered = root, root / "federation", root / "registered"
        authority.init(self.federation, authority.server_names("fedrisk", ()))

    def add(self, name: str, **more: object) -> Path:
        kit = self.root / f"kit-{name}"
        arguments = {
            "superlink": "localhost:9092",
            "out": kit,
            "registered": self.registered,
            "authority": self.federation / "ca.crt",
            "lake": "s3a://fl-demo-data-{hospital}",
            "image": "fedrisk-hospital:abc",
            **more,
        }
        add_hospital(name, **arguments)  # type: ignore[arg-type]
        return kit


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path)


@contextmanager
def tls_server(certificate: Path, key: Path, ahead: float = 0) -> Iterator[int]:
    """A real HTTPS server on a free port of 127.0.0.1 whose clock is ``ahead`` seconds ahead."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(404)
            self.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Server(http.server.ThreadingHTTPServer):
        def get_request(self) -> tuple[ssl.SSLSocket, object]:  # type: ignore[override]
            plain, address = super().get_request()
            plain.settimeout(10)
            return context.wrap_socket(
                plain, server_side=True, do_handshake_on_connect=False
            ), address

        def handle_error(self, *_: object) -> None:
            pass  # a client that refuses the certificate is what is tested

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
