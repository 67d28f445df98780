"""What a run runs on: the engine of its data steps, and the resources of its pods.

The resources are a named profile and a study's changes to it, read by the launcher ``kubernetes``
alone. All this affects the place and speed of a run, not its result, so it is not part of a
study's digest.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from tasks.study.base import Count, Part, Positive

Role = Literal["data", "training", "server", "hospital", "registry"]
"""data: the data steps; training: baselines and scores; server: a run's SuperLink; hospital: a
hospital's SuperNode; registry: light steps, with MLflow or with transfers between parties."""
ProfileName = Literal["small", "standard", "large"]
ROLES: tuple[Role, ...] = get_args(Role)
PROFILES: tuple[ProfileName, ...] = get_args(ProfileName)

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def cores(quantity: str) -> Decimal:
    """The number of cores of a CPU quantity.

    Args:
        quantity: In Kubernetes's notation: ``2``, ``0.5`` or ``500m``.

    Raises:
        ValueError: The quantity is not valid or not above zero.
    """
    found = re.fullmatch(r"([0-9]+(?:[.][0-9]{1,3})?)|([0-9]+)m", quantity)
    number = Decimal(0)
    if found is not None:
        number = Decimal(found[1]) if found[1] else Decimal(found[2]) / 1000
    if number <= 0:
        raise ValueError(f"{quantity!r} is not a CPU quantity: write cores (2, 0.5) or 500m")
    return number


def size(quantity: str) -> int:
    """The number of bytes of a memory quantity.

    Args:
        quantity: In Kubernetes's notation: ``512Mi``, ``4Gi``, ``2G``.

    Raises:
        ValueError: The quantity is not valid, or below 1 MiB, which means a forgotten unit.
    """
    found = re.fullmatch(r"([0-9]+(?:[.][0-9]+)?)([kMGT]|[KMGT]i)?", quantity)
    number = int(Decimal(found[1]) * _UNITS[found[2] or ""]) if found else 0
    if number < 2**20:
        raise ValueError(f"{quantity!r} is not a memory quantity: write 512Mi, 4Gi or the like")
    return number


def _cpu(value: object) -> object:
    text = str(value) if isinstance(value, int | float) else value
    if isinstance(text, str):
        cores(text)
    return text


def _memory(value: object) -> object:
    text = str(value) if isinstance(value, int) else value
    if isinstance(text, str):
        size(text)
    return text


class Amount(Part):
    """Cores and memory."""

    cpu: Annotated[str, BeforeValidator(_cpu)] | None = None
    """Cores: ``2``, ``0.5`` or ``500m``."""
    memory: Annotated[str, BeforeValidator(_memory)] | None = None
    """Bytes with their unit: ``512Mi``, ``4Gi``."""

    def over(self, other: Amount) -> Amount:
        """This amount, completed from another where it has no value."""
        return other.model_copy(update=self.model_dump(exclude_none=True))


class Toleration(Part):
    """A taint of nodes that a pod tolerates, as in Kubernetes."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Resources(Part):
    """The resources of one role's pods, and where they may run."""

    requests: Amount = Amount()
    """Free resources that a node must have."""
    limits: Amount = Amount()
    """Above its memory limit a pod is killed, above its CPU limit it is throttled."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """Whole GPUs (``nvidia.com/gpu``)."""
    node_selector: dict[str, str | None] = Field(default_factory=dict)
    """Labels of nodes in addition to the pod template's; null removes one of the template."""
    tolerations: list[Toleration] = Field(default_factory=list)
    """Tolerations in addition to the pod template's."""

    def over(self, other: Resources) -> Resources:
        """These resources, completed from others where they have no value.

        A limit given without a request lowers the other's request to it; a request given without
        a limit raises the other's limit.
        """
        requests, limits = self.requests.over(other.requests), self.limits.over(other.limits)
        for name, measure in (("cpu", cores), ("memory", size)):
            least, most = getattr(requests, name), getattr(limits, name)
            if least and most and measure(least) > measure(most):
                if getattr(self.requests, name) is None:
                    requests = requests.model_copy(update={name: most})
                else:
                    limits = limits.model_copy(update={name: least})
        return Resources(
            requests=requests,
            limits=limits,
            gpu=self.gpu or other.gpu,
            node_selector={**other.node_selector, **self.node_selector},
            tolerations=[*other.tolerations, *self.tolerations],
        )

    @model_validator(mode="after")
    def _sound(self) -> Resources:
        asked, most = self.requests, self.limits
        if asked.cpu and most.cpu and cores(asked.cpu) > cores(most.cpu):
            raise ValueError(f"requests.cpu {asked.cpu} is above limits.cpu {most.cpu}")
        if asked.memory and most.memory and size(asked.memory) > size(most.memory):
            raise ValueError(f"requests.memory {asked.memory} is above limits.memory {most.memory}")
        return self


def _of(cpu: str, memory: str, most_cpu: str, most_memory: str) -> Resources:
    return Resources(
        requests=Amount(cpu=cpu, memory=memory), limits=Amount(cpu=most_cpu, memory=most_memory)
    )


FIGURES: dict[ProfileName, dict[Role, Resources]] = {
    # A cluster of one small node: memory as measured (docs/pods.md), CPU as available.
    "small": {
        "data": _of("100m", "1Gi", "2", "2Gi"),
        "training": _of("50m", "512Mi", "2", "1536Mi"),
        "server": _of("100m", "768Mi", "2", "2Gi"),
        "hospital": _of("50m", "768Mi", "2", "1536Mi"),
        "registry": _of("50m", "384Mi", "2", "1Gi"),
    },
    # Server and hospital as in the design; the other roles alike.
    "standard": {
        "data": _of("1", "2Gi", "2", "4Gi"),
        "training": _of("1", "2Gi", "2", "4Gi"),
        "server": _of("2", "4Gi", "4", "8Gi"),
        "hospital": _of("1", "2Gi", "2", "4Gi"),
        "registry": _of("500m", "1Gi", "1", "2Gi"),
    },
    "large": {
        "data": _of("4", "8Gi", "8", "16Gi"),
        "training": _of("4", "8Gi", "8", "16Gi"),
        "server": _of("4", "8Gi", "8", "16Gi"),
        "hospital": _of("4", "8Gi", "8", "16Gi"),
        "registry": _of("1", "2Gi", "2", "4Gi"),
    },
}


class Compute(Part):
    """What runs the data steps, and the resources of a run's pods."""

    engine: Literal["auto", "local", "spark"] = "auto"
    """``FEDRISK_ENGINE`` replaces it. local: DuckDB in the step's process; spark: for tables that
    one process cannot hold; auto: local up to ``spark_above_rows``. In pods Spark, also for a Delta
    source that only Spark reads, is in the image of the engine spark alone."""
    spark_above_rows: Count = 20_000_000

    profile: ProfileName = "standard"
    """``FEDRISK_COMPUTE`` replaces it; the roles below still apply."""
    data: Resources = Resources()
    training: Resources = Resources()
    server: Resources = Resources()
    hospital: Resources = Resources()
    registry: Resources = Resources()
    place_within: Positive = 600
    """Seconds for the cluster to find, or to add, a node for a pod."""
    start_within: Positive = 600
    """Seconds for the node to pull the image and start the pod."""

    def resources(self, role: Role, profile: str = "") -> Resources:
        """The resources of a role's pods.

        Args:
            role: The role.
            profile: Overrides the study's profile unless empty.

        Raises:
            ValueError: There is no such profile.
        """
        name = profile or self.profile
        if name not in FIGURES:
            raise ValueError(f"no compute profile {name!r}; there are {', '.join(PROFILES)}")
        own: Resources = getattr(self, role)
        return own.over(FIGURES[name][role])
