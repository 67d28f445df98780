"""The Flower ServerApp: reads what the launcher wrote, trains, and leaves how it ended in a file.

``flwr run`` succeeds even where the ServerApp raises, so the file is what the launcher believes.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from flwr.app import Context  # noqa: TID253  (a Flower app)
from flwr.serverapp import Grid, ServerApp  # noqa: TID253

from tasks.errors import FedriskError
from tasks.federation.flower.grid_transport import GridTransport
from tasks.federation.run_files import FAILURE, GONE, OUTCOME, SERVER
from tasks.federation.server.run_state import ServerConfig
from tasks.federation.server.training import train_federated
from tasks.files import write_atomically

log = logging.getLogger(__name__)
app = ServerApp()


@app.main()  # type: ignore[untyped-decorator,unused-ignore]
def main(grid: Grid, context: Context) -> None:
    """Train and leave an outcome or a failure."""
    import torch

    torch.set_num_threads(1)
    private = Path(str(context.run_config["folder"]))
    config = ServerConfig.model_validate_json((private / SERVER).read_bytes())
    try:
        transport = GridTransport(grid, config.nodes, private / GONE)
        outcome = train_federated(config, transport, private.parent)
    except FedriskError as error:
        failure = {"kind": type(error).__name__, "message": str(error)}
        write_atomically(private / FAILURE, json.dumps(failure).encode())
        log.error("%s", error)
    except Exception as error:
        failure = {"kind": "", "message": f"{type(error).__name__} in the ServerApp: {error}"}
        write_atomically(private / FAILURE, json.dumps(failure).encode())
        raise
    else:
        write_atomically(private / OUTCOME, outcome.model_dump_json().encode())
