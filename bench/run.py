"""The default `fedrisk run` as a user starts it: seconds and memory of everything it starts."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from bench.figures import fedrisk, figure, measure


def main() -> None:
    """Run it twice, so that the second shows what a set-up home saves."""
    with tempfile.TemporaryDirectory(prefix="fedrisk-bench-") as folder:
        environment = {**os.environ, "FEDRISK_HOME": folder}
        log = Path(folder) / "bench.log"
        measure(fedrisk("setup"), environment, log)
        for name in ("run", "second_run"):
            used = measure(fedrisk("run", "--json"), environment, log, sample=True)
            if used.code != 0:
                raise SystemExit(f"fedrisk run ended with {used.code}:\n{log.read_text()}")
            figure(f"{name}_seconds", used.wall, "s")
            figure(f"{name}_peak_rss_mib", used.peak_mib, "MiB")
            result = json.loads(used.output.strip().splitlines()[-1])
            figure(f"{name}_rounds", len(result["round_events"]), "rounds")


if __name__ == "__main__":
    main()
