"""Airflow beside the cluster, the runs that it starts as pods, and what is seen of their pods."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from smoke.cluster.site import TOLERATION, Site
from smoke.cluster.tools import Cluster
from smoke.command import ROOT
from smoke.waits import NotReached, until
from tasks.launch.pods import RUN
from tasks.local_airflow.server import Running, airflow_running
from tasks.objects import get
from tasks.run.ending import Ending, read_endings
from tasks.run.manifest import Manifest
from tasks.run.plan import Plan, Request, make_plan
from tasks.run.steps import CONSORTIUM
from tasks.run.stored_run import open_run
from tasks.settings import Settings
from tasks.telemetry.round_event import RoundEvent

DAG = "retrain_{study}"
STEPS = "app.kubernetes.io/managed-by=airflow"
ENDED = ("success", "failed")
OUTSIDE = [f"compute.{role}.tolerations=[{TOLERATION}]".replace("'", "") for role in (
    "data", "registry", "training")]  # fmt: skip
"""On a cluster of one node the steps other than training tolerate its taint too."""


@dataclass(frozen=True)
class PodSeen:
    """What was seen of one pod.

    Attributes:
        name: Its name.
        labels: Its labels.
        run: The run that it worked for.
        spec: Its specification, as the API gave it.
        node: Where it ran.
        created: When the API server took it, in seconds since 1970.
        started: When its container began; 0 if it was not seen running.
    """

    name: str
    labels: Mapping[str, str]
    run: str
    spec: Any
    node: str
    created: float
    started: float

    @property
    def step(self) -> str:
        """The step that it does."""
        return self.labels.get("fedrisk.io/step", "")

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self.labels.get("fedrisk.io/owner", "")

    @property
    def secrets(self) -> set[str]:
        """Names of all secrets that it was given."""
        found = {each.name for each in self.spec.image_pull_secrets or ()}
        for volume in self.spec.volumes or ():
            if volume.secret is not None:
                found.add(volume.secret.secret_name)
            for source in (volume.projected.sources if volume.projected else None) or ():
                if source.secret is not None:
                    found.add(source.secret.name)
        for container in [*self.spec.containers, *(self.spec.init_containers or ())]:
            for each in container.env or ():
                if each.value_from is not None and each.value_from.secret_key_ref is not None:
                    found.add(each.value_from.secret_key_ref.name)
            found |= {e.secret_ref.name for e in container.env_from or () if e.secret_ref}
        return found

    @property
    def volumes(self) -> set[str]:
        """Volumes beside its own empty ones, secrets and maps: claims, and folders of the node."""
        own = ("empty_dir", "secret", "config_map", "projected")
        return {v.name for v in self.spec.volumes or () if not any(getattr(v, k) for k in own)}

    @property
    def tolerates(self) -> list[tuple[str, str]]:
        """Keys and values of the taints that it tolerates."""
        return [(each.key, each.value) for each in self.spec.tolerations or ()]


class PodWatch:
    """Looks at the steps' pods twice a second, to know those that are gone."""

    def __init__(self, cluster: Cluster) -> None:
        """Name the cluster; nothing is watched yet."""
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: dict[str, PodSeen] = {}

    def __enter__(self) -> PodWatch:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join(30)

    def _look(self) -> None:
        while not self._stop.wait(0.5):
            # A look that fails is made up for by the next one.
            with contextlib.suppress(Exception):
                for pod in self._cluster.pods(STEPS):
                    self.seen[pod.metadata.name] = _seen(pod, self.seen.get(pod.metadata.name))


def _seen(pod: Any, before: PodSeen | None) -> PodSeen:
    started = before.started if before else 0.0
    for each in pod.status.container_statuses or ():
        state = each.state.running or each.state.terminated
        if state is not None and state.started_at is not None:
            started = state.started_at.timestamp()
    return PodSeen(
        pod.metadata.name,
        pod.metadata.labels or {},
        (pod.metadata.annotations or {}).get(RUN, ""),
        pod.spec,
        pod.spec.node_name or "",
        pod.metadata.creation_timestamp.timestamp(),
        started,
    )


@dataclass
class Run:
    """One run of a study on the cluster.

    Attributes:
        lab: Where.
        plan: Its plan.
    """

    lab: Lab
    plan: Plan

    @property
    def id(self) -> str:
        """The run's id."""
        return self.plan.run

    @property
    def dag(self) -> str:
        """The DAG's id."""
        return DAG.format(study=self.plan.study.name)

    def state(self) -> str:
        """Airflow's state of the run."""
        return self.lab.running.airflow.state(self.dag, self.id)

    def tasks(self, step: str = "") -> list[dict[str, Any]]:
        """Airflow's tasks of the run, or of one step of it."""
        found = self.lab.running.airflow.tasks(self.dag, self.id)
        return [task for task in found if step in ("", task["task_id"])]

    def pods(self, step: str = "", hospital: str = "") -> list[Any]:
        """Its pods that are there now."""
        selector = STEPS
        selector += f",fedrisk.io/step={step}" if step else ""
        selector += f",fedrisk.io/hospital={hospital}" if hospital else ""
        found = self.lab.cluster.pods(selector)
        return [pod for pod in found if (pod.metadata.annotations or {}).get(RUN) == self.id]

    def running_pod(self, step: str, hospital: str = "") -> Any:
        """A pod of the step that works now, or None."""
        for pod in self.pods(step, hospital):
            if pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None:
                return pod
        return None

    def seen(self) -> dict[str, tuple[str, str]]:
        """Step and hospital of each of its pods that has been seen so far, by the pod's name."""
        return {
            name: (pod.step, pod.labels.get("fedrisk.io/hospital", ""))
            for name, pod in list(self.lab.watch.seen.items())
            if pod.run == self.id
        }

    def rounds(self) -> list[RoundEvent]:
        """The rounds that the server has shared so far."""
        key = f"{CONSORTIUM}/{self.id}/files/federated/rounds.jsonl"
        lines = (get(self.lab.settings.store, key) or b"").decode().split("\n")[:-1]
        return [RoundEvent.model_validate_json(line) for line in lines if line]

    def round(self) -> int:
        """The last round that was shared, 0 before the first."""
        return max((event.round for event in self.rounds()), default=0)

    def manifest(self, step: str, hospital: str | None = None) -> Manifest:
        """A step's manifest."""
        return open_run(self.lab.settings, self.id).read(step, hospital)

    def endings(self) -> list[Ending]:
        """How the launched steps ended, last tries only."""
        return read_endings(open_run(self.lab.settings, self.id))

    def log(self, step: str) -> str:
        """Airflow's log of a step, all tries."""
        root = self.lab.running.home.logs / "tasks" / f"dag_id={self.dag}" / f"run_id={self.id}"
        files = sorted(root.glob(f"task_id={step}*/**/*.log*"))
        return "".join(path.read_text(errors="replace") for path in files if path.is_file())

    def wait(self, limit: float, also: Callable[[], object] = lambda: None) -> str:
        """Wait for the run's end and return its state.

        Args:
            limit: Seconds.
            also: Done at every look.
        """

        def look() -> str:
            self.lab.check()
            also()
            state = self.state()
            return state if state in ENDED else ""

        try:
            return str(until(f"run {self.id} has ended", look, limit, 1.0))
        except NotReached as error:
            states = {f"{t['task_id']}[{t['map_index']}]": t["state"] for t in self.tasks()}
            raise NotReached(f"{error}: {states}") from None

    def cancel(self) -> None:
        """Mark it as failed, which is how a run is cancelled in Airflow."""
        self.lab.running.airflow.fail(self.dag, self.id)


@dataclass
class Lab:
    """An Airflow that runs studies as pods.

    Attributes:
        running: The Airflow.
        settings: Its settings.
        cluster: Where the pods are.
        watch: What was seen of them.
        quiet: Whether a dead process of Airflow is meant to be dead.
    """

    running: Running
    settings: Settings
    cluster: Cluster
    watch: PodWatch
    quiet: bool = field(default=False)

    def check(self) -> None:
        """Raise if one of Airflow's processes has died."""
        if not self.quiet:
            self.running.check()

    def start(self, run: str, *overrides: str, study: str = "stroke", promote: bool = True) -> Run:
        """Plan and trigger a run.

        Args:
            run: Its id.
            overrides: Of the study.
            study: The study.
            promote: Whether its model may become champion.
        """
        request = Request(study=study, overrides=[*OUTSIDE, *overrides], promote=promote)
        plan = make_plan(request, run, self.settings)
        found = Run(self, plan)
        self.running.wait_for_dag(found.dag)
        self.running.airflow.set_paused(found.dag, False)
        conf = request.model_dump(exclude_defaults=True, exclude={"study"})
        self.running.airflow.trigger(found.dag, run, conf)
        return found


def lab_settings(
    site: Site, home: Path, images: str = "", federation: Literal["run", "standing"] = "run"
) -> Settings:
    """The settings of an Airflow that starts pods at a site.

    Args:
        site: The site.
        home: Airflow's home.
        images: Template of the images; the site's by default.
        federation: Whether each run has a federation of its own or the release's.
    """
    return Settings(
        home=home,
        launcher="kubernetes",
        store="s3://fedrisk-runs",
        lake="s3a://fl-demo-data-{hospital}",
        namespace=site.cluster.namespace,
        images=images or f"fedrisk-{{image}}:{site.tag}",
        compute="small",
        studies=ROOT / "dags" / "studies",
        step_deadline=900,
        federation=federation,
    )


@contextlib.contextmanager
def lab_of(site: Site, home: Path, federation: Literal["run", "standing"] = "run") -> Iterator[Lab]:
    """An Airflow for a site, with the consortium's key, until the block is left.

    Args:
        site: The site.
        home: Airflow's home.
        federation: See ``lab_settings``.
    """
    before = dict(os.environ)
    os.environ.update(site.environment())
    settings = lab_settings(site, home, federation=federation)
    try:
        with (
            PodWatch(site.cluster) as watch,
            airflow_running(settings, "run", lambda text: print(text, flush=True)) as running,
        ):
            yield Lab(running, settings, site.cluster, watch)
    finally:
        os.environ.clear()
        os.environ.update(before)


def seconds_since(moment: float) -> float:
    """Seconds on the clock since a moment, to a tenth."""
    return round(time.monotonic() - moment, 1)
