"""Seconds and CPU-seconds of every step of the default study, each as a process of its own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bench.figures import fedrisk, figure, measure
from tasks.run.folder import RunFolder
from tasks.run.plan import read_plan
from tasks.run.steps import STEPS


def main() -> None:
    """Run the steps in order and print two figures each."""
    with tempfile.TemporaryDirectory(prefix="fedrisk-bench-") as folder:
        home = Path(folder)
        environment = {**os.environ, "FEDRISK_HOME": folder}
        log = home / "bench.log"
        base = ("--study", "stroke", "--run", "bench")
        plan = measure(fedrisk("step", "plan", *base), environment, log)
        figure("step_plan_wall", plan.wall, "s")
        hospitals = read_plan(RunFolder(home / "runs", "bench")).hospitals
        for name, step in STEPS.items():
            wall = cpu = 0.0
            for hospital in hospitals if step.each_hospital else [None]:
                own = () if hospital is None else ("--hospital", hospital)
                used = measure(fedrisk("step", name, *base, *own), environment, log)
                if used.code != 0:
                    raise SystemExit(f"step {name} ended with {used.code}:\n{log.read_text()}")
                wall, cpu = wall + used.wall, cpu + used.cpu
            figure(f"step_{name}_wall", wall, "s")
            figure(f"step_{name}_cpu", cpu, "s")


if __name__ == "__main__":
    main()
