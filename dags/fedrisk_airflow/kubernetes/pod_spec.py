"""The pod of a step as Kubernetes is asked for it: image, account, settings, resources, labels.

What every pod of a kind has (security contexts, volumes, whose secret) is in ``pods/<kind>.yaml``;
here is what depends on the step, the hospital and the run. Nothing of Airflow or of Kubernetes'
client is needed, so that a pod can be looked at without either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from tasks.errors import SettingsError
from tasks.launch.environment import QUIET
from tasks.launch.pods import DAG, FOLDER, INDEX, POD_LABELS, RUN, TASK
from tasks.run.plan import Plan
from tasks.run.steps import STEPS, owner_of, step_arguments
from tasks.settings import Settings
from tasks.study import Study
from tasks.study.compute import PROFILES, Compute, Resources, Role, cores, size

Kind = Literal["step", "training", "hospital", "server"]

TEMPLATES = Path(__file__).parent / "templates"
CONTAINER = "step"
"""Name of the one container."""
PORT = 9092
"""Where a server pod listens for hospitals."""
SERVICE = "fedrisk-run"
"""The headless service that gives server pods their names."""
LEAST_HEAP = 600 * 2**20
"""Bytes below which Spark's driver does not start."""


@dataclass(frozen=True)
class PodOf:
    """Which pod a step needs.

    Attributes:
        step: The step's name.
        hospital: The hospital, for a step that runs once a hospital.
        standing: Whether a standing federation trains, so that ``federated`` and ``join`` only
            submit a run, or allow one.
    """

    step: str
    hospital: str | None
    standing: bool

    @property
    def kind(self) -> Kind:
        """Which template it is made from."""
        own = {"federated": "server", "join": "hospital"}
        if not self.standing and self.step in own:
            return "server" if self.step == "federated" else "hospital"
        return "training" if STEPS[self.step].training_nodes else "step"

    @property
    def role(self) -> Role:
        """Which of a study's compute figures it gets."""
        if self.kind in ("server", "hospital"):
            return "server" if self.kind == "server" else "hospital"
        # With a standing federation these two train nothing themselves.
        return "registry" if self.step in ("federated", "join") else STEPS[self.step].role

    @property
    def owner(self) -> str:
        """Whose key it gets: a hospital's name, ``pool`` or ``consortium``."""
        return owner_of(self.step, self.hospital)

    @property
    def account(self) -> str:
        """Name of the owner's service account and secret."""
        return f"fedrisk-hospital-{self.owner}" if self.hospital else f"fedrisk-{self.owner}"

    @property
    def labels(self) -> dict[str, str]:
        """What selects it: for services, network policies and operators."""
        found = {
            **POD_LABELS,
            "fedrisk.io/step": self.step,
            "fedrisk.io/owner": self.owner,
            "fedrisk.io/role": self.kind if self.kind in ("server", "hospital") else "step",
        }
        return found | ({"fedrisk.io/hospital": self.hospital} if self.hospital else {})

    @property
    def name(self) -> str:
        """The beginning of its name; a random end makes it unique."""
        return "-".join(filter(None, ("fedrisk", self.step, self.hospital)))


def check_launcher(settings: Settings) -> None:
    """Refuse settings with which no pod could work.

    Raises:
        SettingsError: Which one, and what is needed.
    """
    if not settings.store.startswith("s3://"):
        raise SettingsError(
            "FEDRISK_LAUNCHER=kubernetes: pods share a run through S3 only; set "
            f"FEDRISK_STORE=s3://bucket (it is {settings.store or 'empty'!r})."
        )
    if settings.compute and settings.compute not in PROFILES:
        raise SettingsError(f"FEDRISK_COMPUTE={settings.compute}: there are {', '.join(PROFILES)}.")


def hostname_of(run: str) -> str:
    """The name of a run's server pod: a DNS label."""
    return f"run-{hashlib.sha256(run.encode()).hexdigest()[:12]}"


def superlink_of(run: str, settings: Settings) -> str:
    """``host:port`` at which a run's server pod is reached from anywhere in the cluster."""
    return f"{hostname_of(run)}.{SERVICE}.{settings.namespace}.svc.cluster.local:{PORT}"


def manifest_of(
    pod: PodOf,
    plan: Plan,
    settings: Settings,
    *,
    study: str,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The pod as Kubernetes' API takes it.

    Args:
        pod: Which pod.
        plan: The run's frozen plan.
        settings: Those of Airflow; its pods get what they must share with it.
        study: The study of the task; the step compares it with the plan's.
        annotations: Which task instance it belongs to.
    """
    text = (TEMPLATES / f"{pod.kind}.yaml").read_text(encoding="utf-8")
    filled = text.replace("{account}", pod.account).replace("{hostname}", hostname_of(plan.run))
    found: dict[str, Any] = YAML(typ="safe").load(filled)
    resources = plan.study.compute.resources(pod.role, settings.compute)
    spec = found["spec"]
    found["metadata"] |= {
        "name": pod.name,
        "namespace": settings.namespace,
        "labels": pod.labels,
        "annotations": dict(annotations or {}),
    }
    container = spec["containers"][0]
    container["image"] = settings.images.replace("{image}", image_of(pod, plan.study, settings))
    container["command"] = _command(pod, study, plan.run)
    container["env"] += [
        {"name": name, "value": value}
        for name, value in _environment(pod, plan, settings, resources).items()
    ]
    container["resources"] = _resources(resources)
    selector = {**spec.get("nodeSelector", {}), **resources.node_selector}
    spec["nodeSelector"] = {key: value for key, value in selector.items() if value is not None}
    spec["tolerations"] = [
        *spec.get("tolerations", []),
        *(each.model_dump(exclude_none=True) for each in resources.tolerations),
    ]
    return found


def image_of(pod: PodOf, study: Study, settings: Settings) -> str:
    """Which image a pod has: Java is in that of Spark's data steps alone."""
    if pod.role == "data" and engine_of(study, settings) == "spark":
        return "spark"
    return STEPS[pod.step].image


def engine_of(study: Study, settings: Settings) -> str:
    """What runs the data steps: Airflow's ``FEDRISK_ENGINE``, or the study's."""
    return settings.engine or study.compute.engine


def annotations_of(context: Mapping[str, Any], folder: str) -> dict[str, str]:
    """Annotations of a pod: the task instance that it belongs to, and the run's folder."""
    ti = context["ti"]
    index = -1 if ti.map_index is None else ti.map_index
    names = {DAG: ti.dag_id, RUN: ti.run_id, TASK: ti.task_id, FOLDER: folder}
    return {**names, INDEX: str(index)}


def limits_of(pod: PodOf, study: Study, settings: Settings) -> str:
    """The memory limit of a pod and the key of the study that sets it, for messages."""
    compute: Compute = study.compute
    memory = compute.resources(pod.role, settings.compute).limits.memory
    return f"{memory or 'none'} (compute.{pod.role}.limits.memory)"


def _command(pod: PodOf, study: str, run: str) -> list[str]:
    # Both streams through one pipe: the container runtime does not keep the order of two.
    merged = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh"]
    return [*merged, "fedrisk", *step_arguments(pod.step, study, run, pod.hospital)]


def _environment(
    pod: PodOf, plan: Plan, settings: Settings, resources: Resources
) -> dict[str, str]:
    """Environment variables beside those of the config map ``fedrisk-settings``; these win."""
    found = {
        **QUIET,
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "FEDRISK_STORE": settings.store,
        "FEDRISK_FEDERATION": settings.federation,
    }
    if pod.hospital and settings.lake:
        # A step of one hospital gets only that hospital's lake.
        found["FEDRISK_LAKE"] = settings.lake_root(pod.hospital)
    if pod.kind in ("server", "hospital"):
        found["FEDRISK_SUPERLINK"] = superlink_of(plan.run, settings)
    if pod.role == "data":
        # Always, so that it is the one that the image was chosen for.
        found |= _engine(resources) | {"FEDRISK_ENGINE": engine_of(plan.study, settings)}
    return found


def _engine(resources: Resources) -> dict[str, str]:
    """The engine's share of the pod: Python, and Java's own memory, get the other half."""
    found = {}
    if resources.limits.memory:
        heap = max(LEAST_HEAP, size(resources.limits.memory) // 2)
        found["FEDRISK_ENGINE_MEMORY"] = f"{heap // 2**20}m"
    if resources.limits.cpu:
        threads = int(cores(resources.limits.cpu).to_integral_value(ROUND_CEILING))
        found["FEDRISK_SPARK_MASTER"] = f"local[{threads}]"
    return found


def _resources(resources: Resources) -> dict[str, Any]:
    found = {
        "requests": resources.requests.model_dump(exclude_none=True),
        "limits": resources.limits.model_dump(exclude_none=True),
    }
    if resources.gpu:
        found["limits"]["nvidia.com/gpu"] = str(resources.gpu)
    return found
