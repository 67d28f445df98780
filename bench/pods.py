"""Steps as pods against steps as processes: start-up of a step, and seconds a round.

Needs a cluster (KUBECONFIG, or the one that the tests use) and the images; see docs/cluster.md.
Both launchers run the same study with the same seed; the runs are one after the other.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from statistics import median

from bench.figures import figure
from smoke.cluster.__main__ import the_cluster
from smoke.cluster.lab import Lab, lab_of
from smoke.cluster.site import mark_node
from smoke.cluster.stages import FIRST, LIMIT, smoke_on
from smoke.compare import ProcessRun
from smoke.table import Table
from tasks.run.folder import RunFolder
from tasks.run.manifest import Manifest
from tasks.run.stored_run import open_run
from tasks.telemetry.round_event import read_events

OVERRIDES = ["federation.rounds=20", "federation.deadlines.ready=400"]
LIGHT = ("champion", "reference", "evaluate", "promote")
"""Steps whose own work is short, so that their launch shows."""


def main() -> None:
    """Run the study on both launchers and print the figures and their ratios."""
    tag = os.environ.get("FEDRISK_BENCH_TAG", "dev")
    with contextlib.redirect_stdout(sys.stderr):
        table = Table(out=sys.stderr)
        with the_cluster(tag) as cluster, smoke_on(cluster, tag, table) as smoke:
            site = smoke.site
            site.init()
            site.add(*FIRST)
            site.cluster.make_namespace()
            site.put_secrets()
            site.helm("install", site.values(), 600)
            mark_node(site.cluster)
            with lab_of(site, smoke.folder / "home") as lab:
                began = time.monotonic()
                run = lab.start("bench", *OVERRIDES)
                if run.wait(LIMIT) != "success":
                    raise SystemExit(f"the run in pods failed: {run.endings()}")
                pods = _measured(open_run(lab.settings, run.id), time.monotonic() - began)
                starts = _pod_starts(lab)
            began = time.monotonic()
            beside = ProcessRun(smoke.folder / "process", "bench", OVERRIDES)
            try:
                beside.figures(LIMIT)
            finally:
                beside.end()
            folder = RunFolder(smoke.folder / "process" / "runs", "bench")
            processes = _measured(folder, time.monotonic() - began)
    for name, value in starts.items():
        figure(f"pod_{name}_seconds", value, "s")
    for name, unit in (("launch", "s"), ("round", "s"), ("federated", "s"), ("run", "s")):
        figure(f"pods_{name}_seconds", pods[name], unit)
        figure(f"processes_{name}_seconds", processes[name], unit)
        figure(f"pods_{name}_ratio", pods[name] / processes[name], "x", against="processes")


def _measured(run: RunFolder, whole: float) -> dict[str, float]:
    """Seconds of a run: median launch of a light step, median round, training, all of it.

    The launch is what an ending counts beyond the step's own work: from the making of the pod or
    process to its end, without the seconds of the manifest.
    """
    from tasks.run.ending import read_endings

    endings = {(each.step, each.hospital): each.seconds for each in read_endings(run)}
    launches = []
    for step in LIGHT:
        manifest: Manifest | None = run.find(step)
        if manifest is not None and (step, None) in endings:
            launches.append(endings[step, None] - manifest.seconds)
    federated = run.read("federated")
    events = read_events(run.fetch(federated.files["rounds"]))
    return {
        "launch": median(launches),
        "round": median(event.seconds for event in events[1:]),
        "federated": federated.seconds,
        "run": whole,
    }


def _pod_starts(lab: Lab) -> dict[str, float]:
    """Seconds from the API server's taking a pod to its container's start (whole seconds)."""
    waits = [pod.started - pod.created for pod in lab.watch.seen.values() if pod.started]
    return {"start_median": median(waits), "start_most": max(waits)}


if __name__ == "__main__":
    main()
