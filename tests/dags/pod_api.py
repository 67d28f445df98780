"""As much of Kubernetes' API as one step's pod needs, over HTTP, with faults on demand."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

NAMESPACE = "here"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


class PodApi:
    """Pods in memory, and a server that can be away, refuse or answer."""

    def __init__(self, folder: Path) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.lines: list[str] = []
        self.status = 0
        """Answer every call with this status instead, where it is set."""
        self._server = self._listen(0)
        self.port = self._server.server_address[1]
        self.config = folder / "kubeconfig"
        cluster = {"server": f"http://127.0.0.1:{self.port}"}
        self.config.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "x",
                    "clusters": [{"name": "x", "cluster": cluster}],
                    "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                    "users": [{"name": "x", "user": {}}],
                }
            )
        )

    def away(self) -> None:
        """Let nobody listen any more."""
        self._server.shutdown()
        self._server.server_close()

    def back(self) -> None:
        """Listen again, with the same pods."""
        self._server = self._listen(self.port)

    def _listen(self, port: int) -> ThreadingHTTPServer:
        api = self

        class Handler(_Handler):
            of = api

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    @property
    def only(self) -> dict[str, Any]:
        """The one pod."""
        (pod,) = self.pods.values()
        return pod

    def run(self, pod: dict[str, Any]) -> None:
        """Let a pod's container run."""
        state = {"running": {"startedAt": _now()}}
        pod["status"] = {"phase": "Running", "containerStatuses": [_container(state)]}

    def refuse_image(self, pod: dict[str, Any], message: str) -> None:
        """Let a pod's image be none that the node can have."""
        state = {"waiting": {"reason": "ErrImagePull", "message": message}}
        placed = {"type": "PodScheduled", "status": "True"}
        pod["status"] = {
            "phase": "Pending",
            "conditions": [placed],
            "containerStatuses": [_container(state)],
        }

    def end(self, pod: dict[str, Any], code: int, *lines: str, reason: str = "Error") -> None:
        """Let a pod's container end."""
        self.lines = list(lines)
        ended = {"exitCode": code, "reason": reason, "finishedAt": _now(), "startedAt": _now()}
        pod["status"] = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [_container({"terminated": ended})],
        }

    def lose(self, pod: dict[str, Any], seconds: float) -> None:
        """Have a pod deleted some time ago, on a node that does not answer."""
        gone = datetime.now(UTC) - timedelta(seconds=seconds)
        pod["metadata"]["deletionTimestamp"] = f"{gone:%Y-%m-%dT%H:%M:%SZ}"


class _Handler(BaseHTTPRequestHandler):
    of: PodApi

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, found: Any, status: int = 200) -> None:
        content = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(status)
        kind = "text/plain" if isinstance(found, bytes) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        url = urlparse(self.path)
        if self.of.status:
            self._answer({"message": "told to refuse"}, self.of.status)
        elif url.path.endswith("/events"):
            self._answer({"kind": "EventList", "items": []})
        elif url.path == PODS:
            self._pods(body, parse_qs(url.query))
        else:
            self._pod(body, *url.path.removeprefix(f"{PODS}/").split("/"))

    def _pods(self, body: dict[str, Any], query: dict[str, list[str]]) -> None:
        if self.command == "GET":
            wanted = query.get("labelSelector", [""])[0]
            items = [p for p in self.of.pods.values() if _selected(p, wanted)]
            self._answer({"kind": "PodList", "apiVersion": "v1", "items": items})
            return
        body["metadata"] |= {"creationTimestamp": _now(), "uid": str(len(self.of.pods))}
        body["status"] = {"phase": "Pending"}
        self.of.pods[body["metadata"]["name"]] = body
        self._answer(body, 201)

    def _pod(self, body: dict[str, Any], name: str, what: str = "") -> None:
        pod = self.of.pods.get(name)
        if pod is None:
            self._answer({"message": f"pods {name!r} not found"}, 404)
        elif what == "log":
            lines = (f"{_now()} {line}\n" for line in self.of.lines)
            self._answer("".join(lines).encode())
        elif self.command == "DELETE":
            # On a lost node nobody says that a pod has ended; without grace it is not waited for.
            forced = parse_qs(urlparse(self.path).query).get("gracePeriodSeconds") == ["0"]
            if forced or "deletionTimestamp" not in pod["metadata"]:
                del self.of.pods[name]
            self._answer(pod)
        else:
            pod["metadata"]["labels"] |= body.get("metadata", {}).get("labels", {})
            self._answer(pod)

    do_GET = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815  (the standard library's names)


def _container(state: dict[str, Any]) -> dict[str, Any]:
    fixed = {"image": "i", "imageID": "i", "ready": False, "restartCount": 0}
    return {"name": "step", "state": state, **fixed}


def _selected(pod: dict[str, Any], selector: str) -> bool:
    labels = pod["metadata"]["labels"]
    for term in filter(None, selector.split(",")):
        if term.startswith("!"):
            met = term[1:] not in labels
        else:
            key, unequal, value = re.fullmatch(r"([^!=]+)(!?)=(.*)", term).groups()  # type: ignore[union-attr]
            met = (labels.get(key) == value) != bool(unequal)
        if not met:
            return False
    return True


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
