"""A run whose hospitals have real gold tables and profiles, as the data steps leave them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from tasks.data.profile import BINS, ColumnProfile, Group, Profile, merge_bins, merge_categories
from tasks.run.folder import RunFolder
from tasks.run.manifest import Manifest, TableVersion
from tasks.run.plan import Request, make_plan
from tasks.run.step import Context
from tasks.settings import Settings
from tasks.study import Study

STUDIES = Path(__file__).parents[2] / "dags" / "studies"


def gold_run(home: Path, name: str = "gold", overrides: tuple[str, ...] = ()) -> Context:
    """Make the run: risk rises with age, hospitals differ in age and rate.

    Args:
        home: FEDRISK_HOME.
        name: The run's id.
        overrides: Of the study.
    """
    settings = Settings.from_environment(
        {"FEDRISK_HOME": str(home), "FEDRISK_STUDIES": str(STUDIES)}
    )
    quick = ["evaluation.bootstrap=100", "model.max_epochs=12", *overrides]
    plan = make_plan(Request(study="stroke", overrides=quick), name, settings)
    context = Context(plan, RunFolder(settings.runs, name), settings, None)
    generator = np.random.default_rng(3)
    for hospital, mean in zip(plan.hospitals, (62, 38, 48), strict=True):
        make_gold(context, hospital, mean, generator)
    return context


def at(context: Context, hospital: str) -> Context:
    """The context of one hospital's step."""
    return replace(context, hospital=hospital)


def make_gold(context: Context, hospital: str, mean: float, generator: np.random.Generator) -> None:
    """Write one hospital's gold table and the manifest of its step ``features``."""
    study, n = context.study, 400
    values = {
        name: generator.normal(mean if name == "age" else 90, 15, n).clip(*column.range)
        if column.range
        else generator.integers(0, len(column.categories) or 2, n)
        for name, column in study.columns.items()
    }
    gone = generator.random(n) < 0.1
    logit = -3 + 0.08 * (values["age"] - 50) + 0.8 * values["hypertension"]
    label = (generator.random(n) < 1 / (1 + np.exp(-logit))).astype(int)
    part = generator.choice(["train", "validation", "test"], n, p=[0.6, 0.2, 0.2])
    columns = {
        "patient": [f"{hospital}-{i:04d}" for i in range(n)],
        "part": part.tolist(),
        "label": label,
    }
    for f in study.features:
        value = values[f.column]
        if f.kind == "numeric":
            columns[f.name] = pa.array(value, mask=gone if f.column == "bmi" else None)
        elif f.kind == "missing":
            columns[f.name] = gone.astype(float)
        elif f.kind == "binary":
            columns[f.name] = value.astype(float)
        else:
            place = study.columns[f.column].categories.index(f.category)
            columns[f.name] = (value == place).astype(float)
    uri = context.settings.table(hospital, study.name, "gold")
    write_deltalake(uri, pa.table(columns), mode="overwrite")
    train = part == "train"
    profile = profile_of(study, {k: v[train] for k, v in values.items()}, gone[train], label[train])
    context.run.write(
        Manifest(
            step="features",
            study=study.name,
            run=context.run.run,
            hospital=hospital,
            tables={"gold": TableVersion(uri=uri, version=0, rows=n)},
            figures={"profile": profile.model_dump(mode="json")},
        )
    )


def profile_of(
    study: Study, values: dict[str, np.ndarray], gone: np.ndarray, label: np.ndarray
) -> Profile:
    """What the step ``features`` makes of training rows."""
    found = {}
    for name, column in study.columns.items():
        known = ~gone if name == "bmi" else np.ones(len(label), bool)
        if column.range:
            low, high = column.range
            place = ((values[name] - low) / ((high - low) / BINS)).astype(int).clip(0, BINS - 1)
            counts = {
                int(b): (int((place == b)[known].sum()), int(label[(place == b) & known].sum()))
                for b in np.unique(place[known])
            }
            groups = merge_bins(counts, low, high, 5)
        else:
            names = column.categories or ["0", "1"]
            counts = {
                category: (int((values[name] == i).sum()), int(label[values[name] == i].sum()))
                for i, category in enumerate(names)
            }
            groups = merge_categories(counts, 5)
        absent = int((~known).sum())
        missing = (
            Group(name="missing", rows=absent, positives=int(label[~known].sum()))
            if absent >= 5
            else None
        )
        kind = "number" if column.range else "category"
        found[name] = ColumnProfile(kind=kind, groups=groups, missing=missing)
    return Profile(min_count=5, rows=len(label), positives=int(label.sum()), columns=found)
