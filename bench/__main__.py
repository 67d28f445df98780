"""Run every benchmark, or those named on the command line."""

from __future__ import annotations

import importlib
import signal
import sys

ALL = ["federated_round", "data_steps", "steps", "run"]


def main() -> None:
    """Run the benchmarks in turn."""
    # Being told to end is the same as Ctrl-C: what was started is put away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in sys.argv[1:] or ALL:
        importlib.import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()
