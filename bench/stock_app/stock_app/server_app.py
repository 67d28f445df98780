"""FedAvg from ``flwr.serverapp``; the time after each round goes into a file."""

import time
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from stock_app.net import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    config = context.run_config

    def mark(number: int, _: ArrayRecord) -> MetricRecord | None:
        with Path(str(config["marks"])).open("a") as file:
            file.write(f"{number} {time.time()}\n")
        return None

    strategy = FedAvg(min_train_nodes=3, min_evaluate_nodes=3, min_available_nodes=3)
    first = ArrayRecord(Net(int(config["inputs"])).state_dict())
    strategy.start(grid, first, num_rounds=int(config["rounds"]), evaluate_fn=mark)
