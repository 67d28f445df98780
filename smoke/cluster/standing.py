"""Standing SuperNodes: the release grows by values alone, and its federation trains a run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from smoke.cluster.faults import UNJUDGED
from smoke.cluster.lab import Lab, Run, lab_of
from smoke.cluster.site import Site
from smoke.cluster.tools import CALL, ready
from smoke.compare import ProcessRun, check_same
from smoke.http import page_of
from smoke.table import Table
from smoke.waits import remaining, until
from tasks.errors import DataError
from tasks.objects import put
from tasks.registry.champion import CHALLENGER
from tasks.run.steps import STEPS
from tasks.run.stored_run import open_run
from tasks.telemetry.tracking import RUN_TAG

SUPERLINK = "fedrisk-superlink-0"
COUNTS = (4, 10)
"""Hospitals, one after the other."""
TRAINED = ("hospital-1", "hospital-4")
"""Of the first number those that train a run: one of before, and the new one."""
SHARE = "{title: Some, share: {rows: 1200, positive_rate: 0.06}}"
STUDY = [
    *("federation.rounds=2", "federation.deadlines.ready=400"),
    f"hospitals={{{', '.join(f'{name}: {SHARE}' for name in TRAINED)}}}",
    # Who trains is checked, not how good a model of two rounds is beside a champion of six.
    *UNJUDGED,
]
ROLE = "fedrisk.io/role"


def grow_and_train(site: Site, table: Table, home: Path, limit: float) -> None:
    """Give more and more hospitals a standing SuperNode, and let some of them train a run.

    The run's data steps are Spark's, and its figures those of the same run by processes on DuckDB.

    Args:
        site: Where; it has a release.
        table: Gets the checks.
        home: Of the Airflow that starts the run.
        limit: Seconds for the run.
    """
    # It works while the release grows, which is mostly waiting.
    beside = ProcessRun(home.with_name("standing"), "standing", STUDY)
    try:
        _grow(site, table, COUNTS[0])
        with lab_of(site, home, federation="standing") as lab:
            _train(lab, site, table, limit, beside)
    finally:
        beside.end()
    _mend(site, table)
    _come_back(site, table, COUNTS[0])
    _grow(site, table, COUNTS[1])


def _grow(site: Site, table: Table, count: int) -> None:
    """Let the release have so many hospitals."""
    before = _superlink(site)
    site.add(*(f"hospital-{n}" for n in range(len(site.hospitals) + 1, count + 1)))
    site.put_secrets()
    site.helm("upgrade", site.values(supernodes=True), 900)
    found = site.pods_ready("supernode", count, 600)
    registered = until("all keys are registered", partial(_registered, site, count), 600)
    same = _goes_on(site, before)
    table.check(
        f"supernodes-{count}",
        f"{count} hospitals by values alone: all SuperNodes are connected",
        len(found) == count and same,
        f"{len(found)} ready, {registered} keys registered, SuperLink restarted: {not same}",
    )


def version_of(site: Site, alias: str) -> dict[str, Any]:
    """The version that an alias of the stroke model names, asked of MLflow under its service name.

    Args:
        site: Where.
        alias: Such as ``champion``.
    """
    path = f"/api/2.0/mlflow/registered-models/alias?name=fedrisk-stroke&alias={alias}"
    url = f"http://{site.cluster.address('fedrisk-mlflow')}{path}"
    found: dict[str, Any] = json.loads(page_of(url, {"Host": "fedrisk-mlflow:5000"}))
    return dict(found["model_version"])


def _train(lab: Lab, site: Site, table: Table, limit: float, beside: ProcessRun) -> None:
    """A run in pods that the release's SuperLink and SuperNodes train, on the engine ``spark``."""
    before = _superlink(site)
    # Kubernetes brings the secret of identities at another time than the map of keys.
    refused = remaining(partial(_refused, site), 600)
    if not table.check(
        "store-opens",
        "the store opens each hospital's bucket to it and to the pool",
        not refused,
        refused,
    ):
        return
    # Side by side on few cores each would take longer than both in turn.
    by_process = beside.figures(limit)
    run = lab.start("standing", *STUDY, "compute.engine=spark", promote=False)
    state = run.wait(limit)
    why = "; ".join(f"{e.step}: {e.message}" for e in run.endings() if e.code)
    if not table.check(
        "trained", "a run in pods is trained by the standing federation", state == "success", why
    ):
        return
    federated = run.manifest("federated").figures
    own = {pod.step for pod in lab.watch.seen.values() if pod.labels.get(ROLE) != "step"}
    started = f"run {run.id}: started" in site.cluster.log(SUPERLINK)
    same = _goes_on(site, before)
    rounds = dict.fromkeys(TRAINED, federated["rounds"])
    table.check(
        "took-part",
        "its hospitals took part in all its rounds, by the release's own processes",
        federated["participation"] == rounds
        and not federated["lost"]
        and started
        and same
        and not own,
        f"{federated['participation']}, lost: {federated['lost']}, started by the SuperLink: "
        f"{started}, restarted: {not same}, pods of its own: {', '.join(sorted(own)) or 'none'}",
    )
    check_same(table, by_process, open_run(lab.settings, run.id), champion=False)
    pods = [pod for pod in list(lab.watch.seen.values()) if pod.run == run.id and pod.step]
    data = [pod for pod in pods if STEPS[pod.step].role == "data"]
    images = {pod.spec.containers[0].image for pod in data}
    table.check(
        "spark",
        "its data steps ran in the image with Spark",
        images == {f"fedrisk-spark:{site.tag}"},
        ", ".join(sorted(images)),
    )
    _registered_model(run, site, table)


def _mend(site: Site, table: Table) -> None:
    """Upgrade to an image that is nowhere, and back."""
    before, nowhere = _superlink(site), f"images.digests.mlflow=sha256:{'0' * 64}"
    site.helm("upgrade", site.values(supernodes=True), wait=False, options=("--set", nowhere))
    until("MLflow waits for its image", partial(_waits_for_an_image, site, "mlflow"), 600)
    site.helm("upgrade", site.values(supernodes=True), 600)
    same = _goes_on(site, before)
    table.check(
        "mended",
        "an upgrade replaces a pod that could not start",
        same,
        f"the SuperLink restarted: {not same}",
    )


def _waits_for_an_image(site: Site, component: str) -> bool:
    found = [
        each.state.waiting.reason
        for pod in site.cluster.pods(f"app.kubernetes.io/component={component}")
        for each in pod.status.container_statuses or ()
        if each.state.waiting
    ]
    return any("Image" in (reason or "") for reason in found)


def _come_back(site: Site, table: Table, count: int) -> None:
    """Delete the SuperLink's pod: the next one has all keys, and lets the hospitals in."""
    before = _superlink(site)
    site.cluster.delete_pod(SUPERLINK)
    # The name is another pod's then, with a log of its own.
    until("the SuperLink is back", lambda: _back(site, before), 600)
    registered = until("all keys are registered again", partial(_registered, site, count), 600)
    found = site.pods_ready("supernode", count, 600)
    table.check(
        "superlink-back",
        "the SuperLink's pod is deleted: all SuperNodes are connected again",
        len(found) == count,
        f"{registered} keys registered, {len(found)} ready",
    )


def _back(site: Site, before: set[str]) -> bool:
    found = [
        pod for pod in site.cluster.pods("app.kubernetes.io/component=superlink") if ready(pod)
    ]
    return bool(found) and not _superlink(site) & before


def _registered_model(run: Run, site: Site, table: Table) -> None:
    """Check that MLflow has the run's model."""
    figures, found = run.manifest("promote").figures, version_of(site, CHALLENGER)
    tags = {tag["key"]: tag["value"] for tag in found.get("tags", ())}
    table.check(
        "model",
        "the model that it trained is in the cluster's MLflow",
        tags.get(RUN_TAG) == run.id and str(found["version"]) == str(figures["model_version"]),
        f"alias {CHALLENGER} is version {found['version']} of run {tags.get(RUN_TAG)}, the run's "
        f"is version {figures['model_version']}",
    )


def _superlink(site: Site) -> set[str]:
    """What its containers are known by: one that is started again in its pod is another one."""
    statuses = _superlink_pod(site).status.container_statuses or ()
    return {str(each.container_id) for each in statuses}


def _goes_on(site: Site, before: set[str]) -> bool:
    """Whether the SuperLink is ready and has not been started again."""
    return ready(_superlink_pod(site)) and _superlink(site) == before


def _superlink_pod(site: Site) -> Any:
    return site.cluster.core.read_namespaced_pod(
        SUPERLINK, site.cluster.namespace, _request_timeout=CALL
    )


def _refused(site: Site) -> str:
    """The store's answer to the first of a hospital and the pool that it refuses the bucket."""
    for name in site.hospitals:
        for owner in (name, "pool"):
            with site.acting_for(owner):
                try:
                    put(f"s3://fl-demo-data-{name}", f"smoke/{owner}", b"x")
                except DataError as error:
                    return f"{owner}: {error}"
    return ""


def _registered(site: Site, count: int) -> int:
    lines = site.cluster.log(SUPERLINK).splitlines()
    names = {line.split()[1] for line in lines if line.startswith("registered ")}
    return len(names) if len(names) >= count else 0
