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

from tasks.manifest import write_atomically

CONNECTION = "run"


class ControlRequest(BaseModel):
    """What to do.

    Attributes:
        port: The SuperLink's port.
        keys: Public key file by hospital.
        app: Folder of the Flower app.
        folder: The federation's private folder, which the ServerApp is told.
        server: The server's configuration, to be completed with the node ids.
        registered: File that is written once all keys are registered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: int
    keys: dict[str, Path]
    app: Path
    folder: Path
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


def main() -> None:
    """Do what the request file in the first argument says."""
    from tasks.federation.executor import wait_for_port

    request = ControlRequest.model_validate_json(Path(sys.argv[1]).read_bytes())
    wait_for_port(request.port)
    nodes = {
        name: int(flwr("supernode", "register", str(key), CONNECTION, "--name", name)["node-id"])
        for name, key in request.keys.items()
    }
    config = json.loads(request.server.read_bytes())
    write_atomically(request.server, json.dumps({**config, "nodes": nodes}).encode())
    write_atomically(request.registered, b"")
    overrides = f'folder="{request.folder}"'
    started = flwr("run", str(request.app), CONNECTION, "--run-config", overrides)
    print(f"run {started['run-id']} of {len(nodes)} hospitals", flush=True)


if __name__ == "__main__":
    main()
