"""What Flower's SuperLink does otherwise here, through its private API (``executor.py`` starts it).

Its control API answers the SuperLink's own machine alone, and a hospital that was removed may come
back.
"""

from __future__ import annotations

from typing import Any

OPEN_TO_HOSPITALS = ("/v1/fleet", "/health")
"""Paths of the SuperLink that other machines may ask for."""


class _ControlFromHereOnly:
    """ASGI middleware: no run is started and no key registered from another machine.

    Flower serves its control API at the port that hospitals reach, without authentication.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = str(scope.get("path", ""))
        outside = (scope.get("client") or ("",))[0] not in ("127.0.0.1", "::1")
        if scope["type"] == "http" and outside and not path.startswith(OPEN_TO_HOSPITALS):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)


def close_control() -> None:
    """Refuse other machines what is not theirs to ask; before the SuperLink is started."""
    from flwr.superlink import extensions
    from starlette.middleware import Middleware

    before = extensions.get_middleware
    extensions.get_middleware = lambda: (Middleware(_ControlFromHereOnly), *before())


def forget_unregistered_keys() -> None:
    """Let a key that was unregistered be registered again, as a new node.

    Flower keeps the key of an unregistered node in use without end, so a hospital that was removed
    could not come back before the SuperLink was started again. Without its key the old node stays
    shut out: Flower looks every request's key up here.
    """
    from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState

    delete = InMemoryLinkState.delete_node

    def delete_node(self: Any, owner_aid: str, node_id: int) -> None:
        with self.lock:
            delete(self, owner_aid, node_id)
            self.node_public_key_to_node_id.pop(self.nodes[node_id].public_key, None)

    InMemoryLinkState.delete_node = delete_node
