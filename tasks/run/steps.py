"""The table of steps: all that launchers, DAGs, stores and images know of a step.

A new step is a function and a row here. ``plan``, which makes a run, is the one step without a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

CONSORTIUM, POOL = "consortium", "pool"
"""Owners beside the hospitals: of the run, and of rows that a study lets leave their hospital."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step is.

    Attributes:
        function: ``module:function``, imported only when the step runs.
        title: What it does, in a few words.
        after: The steps whose manifests it reads, all but those that come before them anyway.
        image: The image that has what it imports; a data step of the engine ``spark`` runs in the
            image of that name.
        role: Which of a study's compute figures its pod gets.
        training_nodes: Whether its pod is for the nodes that are kept for training.
        each_hospital: Whether it runs once a hospital, as the hospital.
        pooled: Whether it reads or writes more than one hospital's rows, with the pool's key.
        private: Whether its files hold a hospital's rows or describe them, so that they stay in
            the hospital's own store.
        local_model: Whether its file is one hospital's model, which is private where the study
            says ``evaluation.cross_site: false``.
        pool: Airflow's pool for a step that runs beside Airflow.
        asset: Name of the asset alias that it updates; empty for none. The asset itself is named
            once the step has made it.
    """

    function: str
    title: str
    after: tuple[str, ...]
    image: Literal["hospital", "federation", "mlflow"]
    role: Literal["data", "training", "registry"]
    training_nodes: bool = False
    each_hospital: bool = False
    pooled: bool = False
    private: bool = False
    local_model: bool = False
    pool: str = "default_pool"
    asset: str = ""


_DATA = partial(Step, image="hospital", role="data", private=True)
_HOSPITAL_DATA = partial(_DATA, each_hospital=True, pool="spark")
_TRAINING = partial(Step, image="federation", role="training", training_nodes=True)
_HOSPITAL_TRAINING = partial(_TRAINING, image="hospital", each_hospital=True)
_REGISTRY = partial(Step, image="mlflow", role="registry")

STEPS: dict[str, Step] = {
    "champion": _REGISTRY(
        function="tasks.registry.champion:champion",
        title="open the MLflow run, fetch the champion",
        after=("plan",),
    ),
    "deal": _DATA(
        function="tasks.data.deal:deal",
        title="deal one table out, or make the cohort",
        after=("plan",),
        pooled=True,
    ),
    "collect": _HOSPITAL_DATA(
        function="tasks.data.collect:collect", title="source to bronze", after=("deal",)
    ),
    "validate": _HOSPITAL_DATA(
        function="tasks.data.validate:validate",
        title="bronze to silver and quarantine",
        after=("collect",),
    ),
    "features": _HOSPITAL_DATA(
        function="tasks.data.features:features",
        title="silver to gold, frozen split",
        after=("validate",),
        asset="fedrisk-{study}-gold",
    ),
    "reference": _TRAINING(
        function="tasks.evaluate.reference:reference",
        title="strongest single feature",
        after=("features",),
        training_nodes=False,
    ),
    "central": _TRAINING(
        function="tasks.evaluate.baselines:central",
        title="centralized baseline",
        after=("features",),
        pooled=True,
    ),
    "local": _HOSPITAL_TRAINING(
        function="tasks.evaluate.baselines:local",
        title="local baseline",
        after=("features",),
        local_model=True,
    ),
    "join": _HOSPITAL_TRAINING(
        function="tasks.federation.join:join",
        title="let the hospital take part in training",
        after=("features",),
        private=True,
    ),
    "federated": _TRAINING(
        function="tasks.federation.federated:federated",
        title="federated training",
        after=("features",),
    ),
    "score": _HOSPITAL_TRAINING(
        function="tasks.evaluate.score:score",
        title="score the test rows",
        after=("champion", "reference", "central", "local", "federated", "join"),
    ),
    "evaluate": _REGISTRY(
        function="tasks.evaluate.evaluation:evaluate", title="compare and report", after=("score",)
    ),
    "promote": _REGISTRY(
        function="tasks.registry.promote:promote",
        title="gates and registry",
        after=("evaluate",),
        asset="fedrisk-{study}-champion",
    ),
}
"""All steps but ``plan``, in the order of a run."""


def longest_chain(steps: Mapping[str, Step] = STEPS) -> int:
    """How many steps, ``plan`` not counted, run one after another at most.

    Args:
        steps: The table, with each step behind those that it comes after.
    """
    depth = {"plan": 0}
    for name, step in steps.items():
        depth[name] = 1 + max(depth[before] for before in step.after)
    return max(depth.values())


def step_arguments(name: str, study: str, run: str, hospital: str | None) -> list[str]:
    """Arguments of the command ``fedrisk`` that run a step.

    Args:
        name: The step's name.
        study: The study's name or file.
        run: The run's id.
        hospital: The hospital, for a step that runs once a hospital.
    """
    found = ["step", name, "--study", study, "--run", run]
    return found if hospital is None else [*found, "--hospital", hospital]


def owner_of(step: str, hospital: str | None) -> str:
    """Whose key a step gets: a hospital's, the pool's or the consortium's.

    Args:
        step: The step's name.
        hospital: The hospital, for a step that runs once a hospital.
    """
    if hospital is not None:
        return hospital
    return POOL if step in STEPS and STEPS[step].pooled else CONSORTIUM
