"""``make cluster-smoke`` on a cluster whose namespace is somebody's, by what the API is asked."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from smoke.cluster.__main__ import main

NAMESPACE = "fedrisk-smoke"


@pytest.fixture
def asked() -> list[str]:
    """What the API was asked: method and path."""
    return []


@pytest.fixture
def kubeconfig(tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The kubeconfig of an API that knows one namespace, which has no label."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            namespace = {"metadata": {"name": NAMESPACE, "labels": {}}}
            found = {"kind": "NamespaceList", "apiVersion": "v1", "items": [namespace]}
            content = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_request(self, *_: object) -> None:
            # Of what it does not answer, too.
            asked.append(f"{self.command} {self.path.partition('?')[0]}")

        def log_message(self, *_: object) -> None:
            pass

    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    file = tmp_path / "kubeconfig"
    cluster = {"server": f"http://127.0.0.1:{server.server_port}"}
    context = {"cluster": "it", "user": "somebody"}
    file.write_text(
        json.dumps(
            {
                "clusters": [{"name": "it", "cluster": cluster}],
                "users": [{"name": "somebody", "user": {}}],
                "contexts": [{"name": "it", "context": context}],
                "current-context": "it",
            }
        )
    )
    try:
        yield file
    finally:
        server.shutdown()
        server.server_close()


def test_a_namespace_that_it_has_not_made_is_refused_before_anything_is_changed(
    kubeconfig: Path,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setattr(sys, "argv", ["smoke.cluster", "--tag", "dev"])
    assert main() == 1
    assert set(asked) == {"GET /api/v1/namespaces"}
    said = capsys.readouterr().out
    assert f"namespace {NAMESPACE} is there and has no label" in said
    assert "delete the namespace if it is not needed" in said


def test_a_cluster_that_cannot_be_had_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "argv", ["smoke.cluster", "--tag", "dev"])
    assert main() == 1
    assert "NOT no fault of the command: Invalid kube-config file" in capsys.readouterr().out
