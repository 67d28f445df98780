"""Faults while runs go on in pods: lost pods, a dead scheduler, no memory, no room, no image."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from smoke.cluster.lab import ENDED, OUTSIDE, STEPS, Lab, Run, lab_settings, seconds_since
from smoke.cluster.site import Site, without_taint
from smoke.command import ROOT
from smoke.table import Table
from smoke.waits import remaining, until
from tasks.launch.environment import settings_environment

ROUNDS, REST = 100, 20
"""Of a run with faults, and how many of them must be left once a hospital is back."""
OTHER = "stroke-beside"
"""Study of the runs that fail: a study has one run at a time, and they go beside that one."""
UNJUDGED = [
    *("gates.min_ratio_to_central=null", "gates.max_drop_to_champion=null"),
    *("gates.calibration_slope=null", "gates.max_calibration_error=null"),
    "gates.beats_reference_by=null",
]
"""For a run of which something else is checked than whether its model is the best one."""
LONG = [
    *("federation.deadlines.round=60", "federation.deadlines.ready=400"),
    # It loses rounds.
    *UNJUDGED,
]
"""A run with time for faults in it, whose rounds do not wait long for a hospital that is gone."""
IMPOSSIBLE = [
    # More than any step beside MLflow can do with.
    "compute.registry.limits.memory=48Mi",
    "compute.data.requests.cpu=500",
    "compute.place_within=8",
]
GONE = 120.0
"""Seconds in which a cancelled run's pods end by themselves; what is left is the sweep's."""
SWEEP, YOUNG = "fedrisk_sweep", 61.0
"""The sweep's DAG, and from what age on it looks at a pod, in seconds."""


class EndedTooSoon(RuntimeError):  # noqa: N818  (the name is the message)
    """A run is done, and had nothing left for what should be seen of it."""


def add_other_study(home: Path) -> None:
    """Give an Airflow that does not run yet the study of the runs that fail.

    Args:
        home: Airflow's home.
    """
    text = (ROOT / "dags" / "studies" / "stroke.yaml").read_text(encoding="utf-8")
    path = _other_study(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"(?m)^name: stroke$", f"name: {OTHER}", text), encoding="utf-8")


def _other_study(home: Path) -> Path:
    return home / "studies" / f"{OTHER}.yaml"


def disturbed_run(
    lab: Lab, site: Site, table: Table, limit: float, former: str, alone: Callable[[], object]
) -> Run:
    """A run in which pods are deleted, the scheduler is killed and the release is upgraded.

    Args:
        lab: Airflow.
        site: Where.
        table: Gets the checks.
        limit: Seconds for the whole run.
        former: Commit of the chart that the release is of, before it is upgraded.
        alone: Returns when nothing else uses Airflow and the release any more.
    """
    try:
        run, before = _lost_and_back(lab, "disturbed", ROUNDS, limit, alone)
    except EndedTooSoon:
        # A pod starts slower where the machine is slow, while a round without it is as short.
        run, before = _lost_and_back(lab, "disturbed-longer", 3 * ROUNDS, limit, alone)
    known_pods = run.seen()
    killed = _kill_scheduler(lab)
    pod = until("the server's pod runs", lambda: run.running_pod("federated"), 600)
    known = run.round()
    lab.cluster.delete_pod(pod.metadata.name)
    # While the server's second pod takes over.
    parts = ("mlflow", "superlink")
    older = site.identities(*parts)
    site.generation += 1
    with without_taint(site.cluster):
        site.helm("upgrade", site.values(), 600)
    newer, in_flight = site.identities(*parts), run.state()
    state = run.wait(limit)
    federated = run.manifest("federated")
    lost = federated.figures["lost"].get("hospital-2", [])
    seen = federated.figures["participation"]
    table.check(
        "lost-hospital",
        "a hospital's pod is deleted mid-round: the run ends well and reports it",
        state == "success" and bool(lost) and seen["hospital-2"] < federated.figures["rounds"],
        f"{state}; deleted after round {before}, missed rounds {lost}, took part in {seen}",
    )
    resumed = [note for note in federated.notes if note.startswith("resumed after round")]
    number = int(resumed[0].split()[3].rstrip(";")) if resumed else 0
    table.check(
        "lost-server",
        "the server's pod is deleted: the run goes on after its checkpoint",
        state == "success" and number >= known - 1 > 0,
        f"{resumed}, deleted in round {known + 1}; {federated.figures['stopped']}",
    )
    same = [part for part in parts if older[part] == newer[part]]
    table.check(
        "upgraded",
        "the release is upgraded while the run trains: MLflow and SuperLink are new, the run ends "
        "well",
        state == "success" and in_flight == "running" and not same,
        f"from the chart of {former}; run {in_flight} after it, then {state}; "
        f"{_revision(site)}; not new: {', '.join(same) or 'none'}",
    )
    # The server's pod was deleted afterwards; nothing else may have been started again.
    new = {work for name, work in run.seen().items() if name not in known_pods}
    again = new & set(known_pods.values())
    table.check(
        "lost-scheduler",
        "the scheduler is killed: the next one takes the run over",
        state == "success" and killed > 0 and again == {("federated", "")},
        f"{killed} processes killed; started again after it: {sorted(again)}",
    )
    return run


def _lost_and_back(
    lab: Lab, name: str, rounds: int, limit: float, alone: Callable[[], object]
) -> tuple[Run, int]:
    """A run whose second hospital's pod was deleted, and takes part again.

    Args:
        lab: Airflow.
        name: The run's id.
        rounds: How many it shall have.
        limit: Seconds until its second round.
        alone: Waited for at the end.

    Returns:
        The run, which goes on, and the last round before the pod was deleted.

    Raises:
        EndedTooSoon: It had too few rounds left when all that was over.
    """
    lost = "hospital-2"
    run = lab.start(name, *LONG, f"federation.rounds={rounds}")
    until("round 2 is done", lambda: _going(run) and run.round() >= 2, limit)
    pod = until(f"{lost}'s pod runs", lambda: run.running_pod("join", lost), 600)
    before = run.round()
    lab.cluster.delete_pod(pod.metadata.name)
    until(
        f"a round without {lost} is reported",
        lambda: _going(run) and _without(run, lost, before),
        600,
    )
    until(
        f"{lost} takes part again",
        lambda: _going(run) and _last(run, lost) > max(_without(run, lost, before)),
        600,
    )
    alone()
    _going(run)
    if run.round() > rounds - REST:
        run.wait(limit)
        # Raises by how it has ended.
        _going(run)
    return run, before


def impossible_run(lab: Lab, table: Table) -> None:
    """A run whose pods have too little memory or ask for too much: fails with the reason."""
    began = time.monotonic()
    run = lab.start("impossible", *IMPOSSIBLE, study=str(_other_study(lab.settings.home)))
    state = run.wait(1200)
    took = seconds_since(began)
    words = {each.step: each.message for each in run.endings()}
    for step, name, what, sign in (
        ("champion", "memory", "more memory than its limit", "memory than its limit of 48Mi"),
        ("deal", "no-room", "no room on any node", "no node has room for the pod"),
    ):
        reason = words.get(step, "")
        table.check(
            name,
            f"{what}: the task fails with the reason in its log",
            state == "failed" and sign in reason and sign in run.log(step),
            f"after {took:.0f} s: {reason}",
        )
    left = [pod.metadata.name for pod in remaining(run.pods, 400)]
    table.check("no-pod-left", "a failed run leaves no pod", not left, left)


@contextlib.contextmanager
def ended_with(commands: list[subprocess.Popen[Any]]) -> Iterator[None]:
    """End the commands that still run when the block is left, which is so where it is cut short."""
    try:
        yield
    finally:
        going = [each for each in commands if each.poll() is None]
        for each in going:
            each.send_signal(signal.SIGINT)
        remaining(lambda: [each for each in going if each.poll() is None], 30)
        for each in going:
            each.kill()


def no_image(site: Site, table: Table, home: Path, started: list[subprocess.Popen[Any]]) -> None:
    """``fedrisk run`` with images that do not exist: fails with the reason and leaves nothing."""
    began = time.monotonic()
    command = subprocess.Popen(
        _fedrisk_run("unpullable"),
        cwd=ROOT,
        env=_environment(site, home, "nowhere.invalid/fedrisk-{image}:1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(command)
    said = command.communicate(timeout=1200)[1]
    reason = next((x for x in said.splitlines() if "cannot be pulled" in x), "")
    table.check(
        "no-image",
        "an image that cannot be pulled: the run fails with the reason",
        command.returncode == 1 and bool(reason),
        f"after {seconds_since(began):.0f} s, exit code {command.returncode}: "
        f"{reason or said[-400:]}",
    )
    # Kubernetes lists a pod that it ends until the node has confirmed it.
    left = remaining(lambda: _pods_of(site, "unpullable"), 400)
    table.check("no-command-pod-left", "the command leaves no pod", not left, left)


def killed_command(
    site: Site, table: Table, home: Path, started: list[subprocess.Popen[Any]]
) -> None:
    """``fedrisk run`` killed by SIGKILL: its pods are ended all the same."""
    began = time.monotonic()
    log = home.with_suffix(".log")
    with log.open("wb") as file:
        command = subprocess.Popen(
            _fedrisk_run("killed"), cwd=ROOT, env=_environment(site, home), stdout=file, stderr=file
        )
    started.append(command)
    try:
        until("the command's pods run", lambda: _pods_of(site, "killed"), 600)
    finally:
        command.kill()
        command.wait()
    killed = time.monotonic()
    until("its pods are gone", lambda: not _pods_of(site, "killed"), 600)
    table.check(
        "killed",
        "the command and its Airflow are killed: its pods are ended",
        True,
        f"{seconds_since(killed):.0f} s after SIGKILL ({seconds_since(began):.0f} s in all)",
    )


def cancelled_run(lab: Lab, table: Table) -> None:
    """A run that is marked as failed while pods work: they are gone soon after."""
    run = lab.start(
        "cancelled",
        "federation.rounds=2",
        study=str(_other_study(lab.settings.home)),
    )
    until("its pods are looked after", lambda: _going(run) and _looked_after(run), 600)
    names = [pod.metadata.name for pod in run.pods()]
    began = time.monotonic()
    run.cancel()
    # What the triggerer had no time to see, or ended by itself at that very moment, is no
    # task's any more.
    left = [pod.metadata.name for pod in remaining(run.pods, GONE)]
    if left:
        _sweep(lab, run)
    took, state = seconds_since(began), run.state()
    table.check(
        "cancelled",
        "a cancelled run's pods are gone",
        state == "failed",
        f"{state}; {', '.join(names)} after {took} s; left to the sweep: "
        f"{', '.join(left) or 'none'}",
    )


def _sweep(lab: Lab, run: Run) -> None:
    """Have the sweep end what is left of a run, as it does every five minutes by itself."""
    until("the sweep may end its pods", lambda: all(_age(p) > YOUNG for p in run.pods()), 600)
    lab.running.airflow.set_paused(SWEEP, False)
    lab.running.airflow.trigger(SWEEP, f"after-{run.id}", {})
    until("the sweep has ended its pods", lambda: not run.pods(), 400)


def _age(pod: Any) -> float:
    return time.time() - float(pod.metadata.creation_timestamp.timestamp())


def _looked_after(run: Run) -> bool:
    """Whether there are pods, and the triggerer has taken each task that waits for one."""
    begun = [t for t in run.tasks() if t["state"] in ("queued", "running", "deferred")]
    waits = [(t["trigger"] or {}).get("triggerer_id") is not None for t in begun]
    return bool(run.pods()) and bool(waits) and all(waits)


def _going(run: Run) -> bool:
    """Whether there is anything to wait for.

    Raises:
        EndedTooSoon: The run has ended well already.
        RuntimeError: It has failed.
    """
    run.lab.check()
    state = run.state()
    if state in ENDED:
        reason = "; ".join(f"{e.step}: {e.message}" for e in run.endings() if e.code)
        error = EndedTooSoon if state == "success" else RuntimeError
        raise error(f"run {run.id} has ended too soon ({state}): {reason}")
    return True


def _without(run: Run, hospital: str, after: int) -> list[int]:
    """The rounds after another that a hospital has missed."""
    events = [event for event in run.rounds() if event.round > after]
    return [e.round for e in events if hospital in e.lost or hospital not in e.replied]


def _last(run: Run, hospital: str) -> int:
    return max((e.round for e in run.rounds() if hospital in e.replied), default=0)


def _kill_scheduler(lab: Lab) -> int:
    """Kill the scheduler as a full machine would, and start another as its supervisor would.

    Returns:
        Number of processes that were killed.
    """
    lab.quiet = True
    home, killed = str(lab.running.home.path), 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            ours = process.environ().get("AIRFLOW_HOME") == home
            if ours and "airflow" in command and "scheduler" in command:
                process.send_signal(signal.SIGKILL)
                killed += 1
    if lab.running.processes is not None:
        lab.running.processes.start(
            "second scheduler",
            lab.running.home.command("scheduler", "--skip-serve-logs"),
            lab.running.home.environment(),
            lab.running.home.logs / "second-scheduler.log",
            lab.running.home.path,
        )
    return killed


def _revision(site: Site) -> str:
    text = site.cluster.helm("status", "fedrisk")
    return next((x for x in text.splitlines() if x.startswith("REVISION")), "")


def _pods_of(site: Site, run: str) -> list[str]:
    return [
        str(pod.metadata.name)
        for pod in site.cluster.pods(STEPS)
        if (pod.metadata.annotations or {}).get("fedrisk.io/run") == run
    ]


def _fedrisk_run(run: str) -> list[str]:
    outside = [word for each in OUTSIDE for word in ("--set", each)]
    return [sys.executable, "-m", "tasks.cli", "run", "--run", run, *outside]


def _environment(site: Site, home: Path, images: str = "") -> dict[str, str]:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    settings = lab_settings(site, home, images)
    return {**os.environ, **site.environment(), **settings_environment(settings)}
