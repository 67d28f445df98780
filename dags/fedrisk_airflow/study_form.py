"""What Airflow shows of a study: the trigger form and the page of its DAG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from airflow.sdk import Param

from tasks.study import Study
from tasks.study.learning import StrategyName

FIELDS = ("source", "hospitals", "strategy", "rounds", "seed", "promote", "overrides")


def form(study: Study) -> dict[str, Param]:
    """The typed trigger form of a study's runs."""
    names = list(study.hospitals)
    titles = {name: hospital.title or name for name, hospital in study.hospitals.items()}
    fallback = "the synthetic cohort" if study.source.synthetic else "the study's own source"
    return {
        "source": Param(
            None,
            type=["null", "string"],
            minLength=1,
            title="Source",
            description="Path or URL of the table (or of the folder of the hospitals' tables); "
            f"empty for {fallback}.",
        ),
        "hospitals": Param(
            names,
            type="array",
            items={"type": "string", "enum": names},
            examples=names,
            values_display=titles,
            uniqueItems=True,
            minItems=study.federation.min_hospitals,
            title="Hospitals",
            description=f"Those that take part; at least {study.federation.min_hospitals}.",
        ),
        "strategy": Param(
            study.federation.strategy,
            type="string",
            enum=list(get_args(StrategyName)),
            title="Strategy",
            description="How the hospitals' updates become one model.",
        ),
        "rounds": Param(
            study.federation.rounds,
            type="integer",
            minimum=1,
            maximum=1000,
            title="Rounds",
            description="The most rounds of federated training.",
        ),
        "seed": Param(
            study.seed,
            type="integer",
            minimum=0,
            maximum=2**31 - 1,
            title="Seed",
            description="The same seed gives the same model.",
        ),
        "promote": Param(
            True,
            type="boolean",
            title="Promote",
            description="Let a model that passes the gates become champion.",
        ),
        "overrides": Param(
            [],
            type="array",
            items={"type": "string", "pattern": r"^\s*[A-Za-z_][\w.-]*\s*=.*$"},
            title="Overrides",
            description="Any key of the study for this run, one `path.to.key=value` a line.",
        ),
    }


def plan_options(study: Study, params: Mapping[str, Any]) -> list[str]:
    """Arguments of ``fedrisk step plan`` for a filled-in form; what is as in the study is left out.

    Args:
        study: The study as its file has it.
        params: The form's values.
    """
    defaults = {name: param.value for name, param in form(study).items()}
    changed = {name: params[name] for name in FIELDS if params[name] != defaults[name]}
    options: list[str] = []
    for name in ("source", "strategy", "rounds", "seed"):
        if changed.get(name) is not None:
            options += [f"--{name}", str(changed[name])]
    if "hospitals" in changed:
        options += ["--hospitals", ",".join(changed["hospitals"])]
    if params["promote"] is False:
        options.append("--no-promote")
    for item in params["overrides"]:
        options += ["--set", item.strip()]
    return options


def page(study: Study) -> str:
    """The DAG's page: what is asked, of whom, and what a model must reach."""
    hospitals = "\n".join(
        f"| {name} | {hospital.title} | {hospital.share.rows if hospital.share else ''} |"
        for name, hospital in study.hospitals.items()
    )
    columns = "\n".join(
        f"| {name} | {column.title or name} | {column.type} | {column.unit} | {column.modality} |"
        for name, column in study.columns.items()
    )
    gates = "\n".join(
        f"- {name.replace('_', ' ')}: {value}"
        for name, value in study.gates.model_dump(mode="json").items()
        if value is not None
    )
    pooled = (
        "Rows may be pooled for a centralized baseline."
        if study.pooling == "allowed"
        else "Rows may not be pooled: the centralized baseline is skipped."
    )
    return f"""# {study.title}

{study.description}

{study.citation}

The target is **{study.target.title or study.target.column}**. {pooled} Federated training:
{study.federation.strategy}, at most {study.federation.rounds} rounds, at least
{study.federation.min_hospitals} hospitals a round.

## Hospitals
| name | what it is | rows dealt |
| --- | --- | --- |
{hospitals}

## Columns
| column | title | type | unit | modality |
| --- | --- | --- | --- | --- |
{columns}

## Gates before promotion
{gates}

## When a task fails
Its log ends with the step's own message. Exit code 2 (bad input or study) and 3 (a gate failed, or
a study is not approved) are not retried; 4 (a hospital or service was away) and faults are, twice.
Clearing a failed task goes on from there: finished steps keep their manifests, and federated
training resumes at the round after its checkpoint.
"""
