"""Step ``reference``: the strongest single column as a model, and the study's published score.

A model that does not beat these has learned nothing worth a federation. Neither needs a row: the
first is fitted on the hospitals' summed profiles, the second is written down in the study.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.data.profile import ColumnProfile, Group, Profile
from tasks.errors import DataError
from tasks.model.artifact import RiskModel
from tasks.model.counted import Counted, Metric
from tasks.model.forward import sigmoid
from tasks.model.metrics import choose_threshold
from tasks.model.scaling import Scaler
from tasks.run.step import Context, Result
from tasks.study import Feature, Study

RIDGE = 1.0
"""Penalty on standardised weights, in patients: it keeps a category without positives finite."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """One column's linear predictor.

    Attributes:
        column: The study's column.
        weights: Per feature of the study, on the log-odds per unit, shape (d,).
        intercept: Of the log-odds where all features are at ``centre``.
        centre: Subtracted from the features, shape (d,); a missing number counts as this.
        counted: The training patients by the predictor's score.
    """

    column: str
    weights: Floats
    intercept: float
    centre: Floats
    counted: Counted

    @property
    def auroc(self) -> float:
        """On the summed tables; 0.5 where it is undefined."""
        return self.counted.value(Metric.AUROC) or 0.5


def reference(context: Context) -> Result:
    """Choose and fit the reference model, and write the published one.

    Args:
        context: The run.

    Raises:
        DataError: No column's profile has enough patients.
    """
    study = context.study
    profiles = [
        Profile.model_validate(context.run.read("features", hospital).figures["profile"])
        for hospital in context.plan.hospitals
    ]
    wanted = study.evaluation.reference
    columns = list(study.columns) if wanted == "auto" else [wanted]
    fitted = [candidate(study, column, profiles) for column in columns]
    candidates = [one for one in fitted if one is not None]
    if not candidates:
        raise DataError(
            f"run {context.run.run}: the hospitals' profiles of {', '.join(columns)} hold too few "
            f"patients or one outcome only (groups of {study.evaluation.min_count} or more are "
            "needed), so there is no reference model."
        )
    best = max(candidates, key=lambda one: one.auroc)
    threshold = choose_threshold(best.counted, study.evaluation.threshold)
    models = {"model": _model(study, best.weights, best.intercept, best.centre, threshold)}
    published = study.evaluation.published
    if published is not None:
        weights = np.array([published.weights.get(f.name, 0.0) for f in study.features])
        centre = np.array([_mean(study, feature, profiles) for feature in study.features])
        rows = sum(profile.rows for profile in profiles)
        prevalence = sum(profile.positives for profile in profiles) / max(rows, 1)
        intercept = published.intercept + float(weights @ centre)
        models["published"] = _model(study, weights, intercept, centre, prevalence)
    files = {}
    for purpose, model in models.items():
        path = context.run.folder("reference") / f"{purpose}.safetensors"
        model.save(path)
        files[purpose] = context.run.relative(path)
    # Rows are not at hand, so there are no validation figures: these are of the training tables.
    return Result(
        files=files,
        figures={
            "column": best.column,
            "threshold": threshold,
            "validation": {"auroc": None, "loss": None},
            "training": {
                "auroc": best.counted.value(Metric.AUROC),
                "loss": best.counted.value(Metric.LOSS),
            },
            "columns": {one.column: one.auroc for one in candidates},
        },
    )


def candidate(study: Study, column: str, profiles: list[Profile]) -> Candidate | None:
    """Fit one column on the summed profiles.

    Args:
        study: Whose column it is.
        column: Its name.
        profiles: Of all hospitals.

    Returns:
        None if the profiles hold no patients of it, or of one outcome only.
    """
    own = [i for i, feature in enumerate(study.features) if feature.column == column]
    features = [study.features[i] for i in own]
    tables = [profile.columns[column] for profile in profiles if column in profile.columns]
    mean = _centre(tables)
    points = [
        ([_value(feature, group, mean) for feature in features], group)
        for table in tables
        for group in (*table.groups, *([table.missing] if table.missing else []))
    ]
    positives = np.array([float(group.positives) for _, group in points])
    rows = np.array([float(group.rows) for _, group in points])
    if not 0 < positives.sum() < rows.sum():
        return None
    design = np.array([values for values, _ in points])
    centre = rows @ design / rows.sum()
    spread = np.sqrt(rows @ (design - centre) ** 2 / rows.sum())
    spread[spread < 1e-9] = 1.0
    fitted = _ridge_logistic((design - centre) / spread, rows, positives)
    weights, middle = np.zeros(len(study.features)), np.zeros(len(study.features))
    weights[own], middle[own] = fitted[:-1] / spread, centre
    for place, feature in zip(own, features, strict=True):
        if feature.kind == "numeric":
            # A missing number is the mean of the known ones, as in the fit.
            fitted[-1] += weights[place] * (mean - middle[place])
            middle[place] = mean
    logit = (design - middle[own]) @ weights[own] + fitted[-1]
    scores, at = np.unique(logit, return_inverse=True)
    sick = np.bincount(at, weights=positives, minlength=len(scores)).astype(np.float64)
    total = np.bincount(at, weights=rows, minlength=len(scores)).astype(np.float64)
    counted = Counted(scores, total - sick, sick)
    return Candidate(column, weights, float(fitted[-1]), middle, counted)


def _value(feature: Feature, group: Group, mean: float) -> float:
    """What a feature is for the patients of a group, on average."""
    absent = group.centre is None and not group.categories
    if feature.kind == "missing":
        return float(absent)
    if feature.kind == "numeric":
        return mean if group.centre is None else group.centre
    wanted = "1" if feature.kind == "binary" else feature.category
    return float(wanted in group.categories) / max(len(group.categories), 1)


def _centre(tables: list[ColumnProfile]) -> float:
    """Mean of a number over the hospitals' known values; 0 for a category."""
    groups = [group for table in tables for group in table.groups if group.centre is not None]
    rows = sum(group.rows for group in groups)
    return sum(group.rows * (group.centre or 0.0) for group in groups) / rows if rows else 0.0


def _mean(study: Study, feature: Feature, profiles: list[Profile]) -> float:
    if feature.kind != "numeric":
        return 0.0
    tables = [p.columns[feature.column] for p in profiles if feature.column in p.columns]
    low, high = study.columns[feature.column].range or (0.0, 0.0)
    return _centre(tables) if any(table.groups for table in tables) else (low + high) / 2


def _ridge_logistic(z: Floats, rows: Floats, positives: Floats) -> Floats:
    """Weights and, last, intercept of a logistic fit on grouped counts, by Newton's method."""
    design = np.column_stack([z, np.ones(len(z))])
    penalty = np.full(design.shape[1], RIDGE)
    penalty[-1] = 0.0
    share = positives.sum() / rows.sum()
    beta = np.zeros(design.shape[1])
    beta[-1] = np.log(share / (1 - share))
    for _ in range(100):
        p = sigmoid(design @ beta)
        gradient = design.T @ (positives - rows * p) - penalty * beta
        hessian = (design.T * (rows * p * (1 - p))) @ design + np.diag(penalty)
        step = np.clip(np.linalg.solve(hessian, gradient), -2.0, 2.0)
        beta = beta + step
        if float(np.abs(step).max()) < 1e-9:
            break
    return np.asarray(beta)


def _model(
    study: Study, weights: Floats, intercept: float, centre: Floats, threshold: float
) -> RiskModel:
    return RiskModel(
        kind="logistic",
        study=study.name,
        features=tuple(feature.name for feature in study.features),
        model=study.model,
        scaler=Scaler(centre, np.ones(len(centre))),
        flat=np.append(weights, intercept).astype(np.float32),
        threshold=threshold,
        strata=study.evaluation.strata,
    )
