"""Step ``score``: every model of the run on one hospital's test rows.

It runs where the rows are, so a model travels and the rows do not. NumPy alone: the step takes a
second.
"""

from __future__ import annotations

from pathlib import Path

from tasks.errors import DataError
from tasks.evaluate.baselines import gold_rows
from tasks.evaluate.pairing import correlation
from tasks.model.artifact import RiskModel
from tasks.model.scores import score as judged
from tasks.run.manifest import Manifest
from tasks.run.step import Context, Result


def score(context: Context) -> Result:
    """Judge the models that the run has, on test rows.

    Args:
        context: The run and the hospital.

    Raises:
        DataError: There is no model, one is not of this study's features, or there are no test
            rows.
    """
    hospital, study = context.own, context.study
    models = {key: RiskModel.load(path) for key, path in model_files(context, hospital).items()}
    if not models:
        raise DataError(
            f"run {context.run.run} has no model to score: run the steps reference, local and "
            "federated first."
        )
    test = gold_rows(context, hospital, ("test",))
    if not len(test):
        raise DataError(f"hospital {hospital} has no test rows: the split needs more patients.")
    names = tuple(feature.name for feature in study.features)
    risks, found = {}, {}
    for key, model in models.items():
        if model.features != names:
            raise DataError(
                f"model {key} takes {len(model.features)} features that are not study "
                f"{study.name}'s {len(names)}: it was made with other columns."
            )
        risks[key] = model.probability(test.x, hospital)
        found[key] = judged(
            test.y,
            risks[key],
            threshold=model.threshold,
            strata=study.evaluation.strata,
            evaluation=study.evaluation,
            seed=study.seed,
        ).model_dump(mode="json")
    pairs = {
        key: correlation(test.y, risks["federated"], risks[key], study.evaluation.min_count)
        for key in study.gates.compared
        if {key, "federated"} <= risks.keys()
    }
    correlations = {key: one.model_dump() for key, one in pairs.items() if one is not None}
    return Result(figures={"models": found, "correlations": correlations})


def model_files(context: Context, hospital: str) -> dict[str, Path]:
    """Find the models that a hospital scores, by key.

    Args:
        context: The run.
        hospital: Its own local model is always among them, others' where the study's
            ``evaluation.cross_site`` lets local models leave their hospital.
    """
    steps = {step: context.run.find(step) for step in ("central", "reference", "federated")}
    steps["champion"] = context.run.find("champion")
    for name in context.plan.hospitals:
        if name == hospital or context.study.evaluation.cross_site:
            steps[f"local:{name}"] = context.run.find("local", name)
    found = {key: _file(context, manifest, "model") for key, manifest in steps.items()}
    found["published"] = _file(context, steps["reference"], "published")
    return {key: path for key, path in found.items() if path is not None}


def _file(context: Context, manifest: Manifest | None, purpose: str) -> Path | None:
    if manifest is None or purpose not in manifest.files:
        return None
    return context.run.path / manifest.files[purpose]
