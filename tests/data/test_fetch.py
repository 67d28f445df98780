"""A source behind https:// comes whole, or the message says why not and whether to retry."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tasks.data.fetch import SourceAway, download, local_copy, public_name
from tasks.errors import DataError

CONTENT = b"id,age\n1,50\n" * 5000
SILENCE = threading.Event()


class Answers(BaseHTTPRequestHandler):
    """What a hospital's file server may do."""

    def do_GET(self) -> None:
        if self.path.startswith("/whole.csv"):
            self._send(200, CONTENT)
        elif self.path == "/broken.csv":
            self.send_response(200)
            self.send_header("Content-Length", str(2 * len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)
        elif self.path == "/slow.csv":
            self.send_response(200)
            self.end_headers()
            SILENCE.wait(120)
        else:
            self._send(503 if self.path == "/busy.csv" else 404, b"")

    def _send(self, code: int, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "server.crt", folder / "server.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An HTTPS server on this machine: its address and its certificate."""
    public, private = certificate(tmp_path_factory.mktemp("tls"))
    served = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    served.socket = context.wrap_socket(served.socket, server_side=True)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{served.server_address[1]}", public
    served.shutdown()
    thread.join(5)


@pytest.fixture
def address(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's address, with its certificate taken from the environment."""
    monkeypatch.setenv("SSL_CERT_FILE", str(server[1]))
    return server[0]


def test_a_source_comes_whole(address: str, tmp_path: Path) -> None:
    found = local_copy(f"{address}/whole.csv?token=abc", tmp_path, "hospital a")
    assert found.name == "whole.csv"
    assert found.read_bytes() == CONTENT


def test_a_source_that_is_not_there_is_bad_input(address: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hospital a: .*/none\.csv answers 404") as error:
        download(f"{address}/none.csv?token=geheim", tmp_path / "x", "hospital a")
    assert "geheim" not in str(error.value)


def test_a_busy_server_is_worth_a_retry(address: str, tmp_path: Path) -> None:
    with pytest.raises(SourceAway, match="answers 503") as error:
        download(f"{address}/busy.csv", tmp_path / "x", "hospital a")
    assert error.value.exit_code == 4


def test_half_a_source_is_not_taken_for_all_of_it(address: str, tmp_path: Path) -> None:
    with pytest.raises(SourceAway, match="broke off"):
        download(f"{address}/broken.csv", tmp_path / "x", "hospital a")


def test_a_server_that_goes_silent_costs_its_deadline(address: str, tmp_path: Path) -> None:
    with pytest.raises(SourceAway):
        download(f"{address}/slow.csv", tmp_path / "x", "hospital a", deadline=0.5)
    SILENCE.set()


def test_a_certificate_of_nobody_is_refused(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate(other)[0]))
    with pytest.raises(DataError, match="no valid certificate"):
        download(f"{server[0]}/whole.csv", tmp_path / "x", "hospital a")


def test_plain_http_and_other_schemes_are_not_read(tmp_path: Path) -> None:
    for address in ("http://example.org/x.csv", "ftp://example.org/x.csv"):
        with pytest.raises(DataError, match="is not read"):
            local_copy(address, tmp_path, "hospital a")


def test_a_message_names_a_source_without_its_secrets() -> None:
    assert public_name("https://user:word@host:8443/a.csv?key=1#x") == "https://host:8443/a.csv"
