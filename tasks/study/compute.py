"""How much a run's pods may use: a profile by name, and what a study changes of it.

Only the launcher ``kubernetes`` reads this. It says where a result is made and how fast, never
what it is, so it is no part of a study's digest.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from tasks.study.base import Part, Positive

Role = Literal["data", "training", "server", "hospital", "registry"]
"""data: Spark's steps; training: baselines and scores; server: a run's SuperLink; hospital: a
hospital's SuperNode; registry: light steps beside MLflow and those that hand something over."""
ProfileName = Literal["small", "standard", "large"]
ROLES: tuple[Role, ...] = get_args(Role)
PROFILES: tuple[ProfileName, ...] = get_args(ProfileName)

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def cores(quantity: str) -> Decimal:
    """The number of cores that a CPU quantity stands for.

    Args:
        quantity: As Kubernetes writes it: ``2``, ``0.5`` or ``500m``.

    Raises:
        ValueError: It is none, or not above zero.
    """
    found = re.fullmatch(r"([0-9]+(?:[.][0-9]{1,3})?)|([0-9]+)m", quantity)
    number = Decimal(0)
    if found is not None:
        number = Decimal(found[1]) if found[1] else Decimal(found[2]) / 1000
    if number <= 0:
        raise ValueError(f"{quantity!r} is no CPU quantity: write cores (2, 0.5) or 500m")
    return number


def size(quantity: str) -> int:
    """The number of bytes that a memory quantity stands for.

    Args:
        quantity: As Kubernetes writes it: ``512Mi``, ``4Gi``, ``2G``.

    Raises:
        ValueError: It is none, or below 1 MiB, which is a forgotten unit.
    """
    found = re.fullmatch(r"([0-9]+(?:[.][0-9]+)?)([kMGT]|[KMGT]i)?", quantity)
    number = int(Decimal(found[1]) * _UNITS[found[2] or ""]) if found else 0
    if number < 2**20:
        raise ValueError(f"{quantity!r} is no memory quantity: write 512Mi, 4Gi or the like")
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
        """This amount, and another's where this says nothing."""
        return other.model_copy(update=self.model_dump(exclude_none=True))


class Toleration(Part):
    """A taint of nodes that a pod puts up with, as Kubernetes has it."""

    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Resources(Part):
    """What the pods of one role ask for, and where they may run."""

    requests: Amount = Amount()
    """What a node must have free."""
    limits: Amount = Amount()
    """Above its memory limit a pod is ended, above its CPU limit it is slowed down."""
    gpu: Annotated[int, Field(ge=0)] = 0
    """Whole GPUs (``nvidia.com/gpu``)."""
    node_selector: dict[str, str | None] = Field(default_factory=dict)
    """Labels of nodes beside those of the pod's template; null takes one of the template away."""
    tolerations: list[Toleration] = Field(default_factory=list)
    """Beside those of the pod's template."""

    def over(self, other: Resources) -> Resources:
        """These resources, and another's where these say nothing.

        A limit that is given alone pulls the other's request down to it, and a request its limit
        up.
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
    # A cluster of one small node: memory as measured (docs/pods.md), CPU as it comes.
    "small": {
        "data": _of("100m", "1Gi", "2", "2Gi"),
        "training": _of("50m", "512Mi", "2", "1536Mi"),
        "server": _of("100m", "768Mi", "2", "2Gi"),
        "hospital": _of("50m", "768Mi", "2", "1536Mi"),
        "registry": _of("50m", "384Mi", "2", "1Gi"),
    },
    # The design's: a server and a hospital of the federation; the others beside them.
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
    """The resources of a run's pods."""

    profile: ProfileName = "standard"
    """``FEDRISK_COMPUTE`` replaces it; what the roles below say stays."""
    data: Resources = Resources()
    training: Resources = Resources()
    server: Resources = Resources()
    hospital: Resources = Resources()
    registry: Resources = Resources()
    place_within: Positive = 600
    """Seconds that a cluster gets to find, or to add, a node for a pod."""
    start_within: Positive = 600
    """Seconds that the node then gets to pull the image and start the pod."""

    def resources(self, role: Role, profile: str = "") -> Resources:
        """What the pods of a role get.

        Args:
            role: The role.
            profile: A profile in place of the study's; empty for the study's.

        Raises:
            ValueError: There is no such profile.
        """
        name = profile or self.profile
        if name not in FIGURES:
            raise ValueError(f"no compute profile {name!r}; there are {', '.join(PROFILES)}")
        own: Resources = getattr(self, role)
        return own.over(FIGURES[name][role])
