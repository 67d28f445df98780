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
from tasks.federation.flower.grid_transport import FlowerLink
from tasks.federation.server.training import ServerConfig, train_federated
from tasks.files import write_atomically

log = logging.getLogger(__name__)
app = ServerApp()

OUTCOME, FAILURE, GONE, CONFIG = "outcome.json", "failure.json", "gone.json", "server.json"
"""Files in the federation's private folder, by which launcher and server speak."""


@app.main()  # type: ignore[untyped-decorator,unused-ignore]
def main(grid: Grid, context: Context) -> None:
    """Train and leave an outcome or a failure."""
    import torch

    torch.set_num_threads(1)
    private = Path(str(context.run_config["folder"]))
    config = ServerConfig.model_validate_json((private / CONFIG).read_bytes())
    try:
        link = FlowerLink(grid, config.nodes, private / GONE)
        outcome = train_federated(config, link, private.parent)
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
