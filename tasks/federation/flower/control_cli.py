"""Register the hospitals' keys and start the run, by Flower's own command line in one process.

``flwr`` as separate commands would import Flower once a hospital, for two CPU-seconds each.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.files import write_atomically

CONNECTION = "run"


class ControlRequest(BaseModel):
    """What to do.

    Attributes:
        port: The SuperLink's port.
        keys: Public key file by hospital.
        app: Folder of the Flower app.
        folder: The federation's private folder, for the ServerApp.
        run: Our own id of the run.
        server: The server's configuration, to be completed with the node ids.
        registered: File that is written once all keys are registered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: int
    keys: dict[str, Path]
    app: Path
    folder: Path
    run: str
    server: Path
    registered: Path


def flwr(*arguments: str) -> dict[str, Any]:
    """Run a ``flwr`` command with JSON output in this process.

    Args:
        arguments: After ``flwr``.

    Raises:
        RuntimeError: It did not succeed.
    """
    import typer
    from flwr.cli.app import app

    output, terminal = io.StringIO(), sys.__stdout__
    # Flower prints its JSON there, past any redirection.
    sys.__stdout__ = output  # type: ignore[misc,assignment]
    try:
        typer.main.get_command(app)([*arguments, "--format", "json"], standalone_mode=False)
    except SystemExit as leave:
        if leave.code:
            raise RuntimeError(f"flwr {arguments[0]}: {output.getvalue()[-500:]}") from None
    finally:
        sys.__stdout__, sys.stdout = terminal, terminal  # type: ignore[misc]
    text = output.getvalue()
    if "{" not in text:
        raise RuntimeError(f"flwr {arguments[0]} gave no JSON: {text[-500:]}")
    found: dict[str, Any] = json.loads(text[text.index("{") :])
    if not found.get("success"):
        raise RuntimeError(f"flwr {arguments[0]}: {text[-500:]}")
    return found


def connect(home: Path, address: str, authority: Path) -> None:
    """Configure Flower's command line with the SuperLink's address.

    Args:
        home: Flower's home folder.
        address: The SuperLink's ``host:port``.
        authority: Certificate to verify it with.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "{address}"\nroot-certificates = "{authority}"\n',
        encoding="utf-8",
    )


def register(name: str, key: Path) -> int:
    """Register a hospital's public key, so that its SuperNode may join.

    Flower waits 30 s for the SuperLink's answer. Where it is lost the key is registered, and a
    second try would be refused, because the key is in use; so the SuperLink's own list counts. A
    key that is another hospital's is refused.

    Args:
        name: The hospital.
        key: Its public key.

    Returns:
        The node's id.
    """
    try:
        return int(flwr("supernode", "register", str(key), CONNECTION, "--name", name)["node-id"])
    except Exception:
        from cryptography.hazmat.primitives.serialization import load_ssh_public_key
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes

        own = public_key_to_bytes(load_ssh_public_key(key.read_bytes()))
        for node in _registered_nodes():
            if (node.name, node.public_key) == (name, own):
                return int(node.node_id)
        raise


def unregister(node: int) -> None:
    """Shut a hospital's SuperNode out; one that is shut out already stays so.

    Args:
        node: The node's id.
    """
    try:
        flwr("supernode", "unregister", str(node), CONNECTION)
    except Exception:
        if node in [each.node_id for each in _registered_nodes()]:
            raise


def _registered_nodes() -> list[Any]:
    """The SuperLink's nodes that may join; Flower's command line shows no keys."""
    from flwr.cli.flower_config import read_superlink_connection
    from flwr.cli.utils import init_http_client_from_connection
    from flwr.proto.control_pb2 import ListNodesRequest
    from flwr.supercore.constant import NodeStatus

    client = init_http_client_from_connection(read_superlink_connection(CONNECTION))
    try:
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
    finally:
        client.close()
    return [node for node in nodes if node.status != NodeStatus.UNREGISTERED]


def submit(app: Path, folder: Path, run: str) -> str:
    """Start a run, and return Flower's id of it.

    Args:
        app: Folder of the Flower app.
        folder: The federation's private folder, for the ServerApp.
        run: Our own id of the run, which the hospitals get.
    """
    overrides = f'folder="{folder}" run="{run}"'
    return str(flwr("run", str(app), CONNECTION, "--run-config", overrides)["run-id"])


def main() -> None:
    """Do what the request file in the first argument says."""
    from tasks.federation.flower.warm_executor import wait_for_port

    request = ControlRequest.model_validate_json(Path(sys.argv[1]).read_bytes())
    wait_for_port(request.port)
    nodes = {name: register(name, key) for name, key in request.keys.items()}
    config = json.loads(request.server.read_bytes())
    write_atomically(request.server, json.dumps({**config, "nodes": nodes}).encode())
    write_atomically(request.registered, b"")
    print(f"run {submit(request.app, request.folder, request.run)} of {len(nodes)} hospitals")


if __name__ == "__main__":
    main()
