"""One model on one hospital's test rows: what leaves the hospital of it.

Totals and rates of all rows leave as they are; cells of fewer patients than the study allows do
not. That keeps small groups out of tables; it is no guarantee of privacy, for a determined reader
may work some cells out from totals and rates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tasks.model.counted import Counted, Metric
from tasks.model.histogram import Confusion, ScoreHistogram, SparseHistogram
from tasks.model.metrics import Decisions, log_odds
from tasks.study import Evaluation, Strata

STRATA = ("Low", "Medium", "High")


class Stratum(BaseModel):
    """Patients of one risk stratum.

    Attributes:
        rows: Patients; None if there are fewer than the study allows, but some.
        observed: Share of positives; None where ``rows`` is None or 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int | None
    observed: float | None


class Scores(BaseModel):
    """Figures of a model on test rows; None where one is undefined or suppressed.

    Attributes:
        rows: Test patients.
        positives: Those of label 1.
        threshold: Risk from which a patient counts as positive.
        histogram: Scores by label, merged so that no group is too small.
        auroc_ci: Bootstrap interval, as the others.
        confusion: Counts below the least are None.
        calibration_slope: 1 is ideal, below 1 the risks are too extreme.
        calibration_intercept: 0 is ideal, below 0 the risks are too high.
        mean_predicted: Mean risk.
        observed: Share of positives.
        strata: Low, Medium and High.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    positives: int
    threshold: float
    histogram: SparseHistogram
    auroc: float | None
    auroc_ci: tuple[float, float] | None
    auprc: float | None
    auprc_ci: tuple[float, float] | None
    brier: float | None
    brier_ci: tuple[float, float] | None
    accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    confusion: Confusion
    calibration_slope: float | None
    calibration_intercept: float | None
    mean_predicted: float | None
    observed: float | None
    strata: dict[str, Stratum]


def stratum_of(probability: NDArray[np.float64], strata: Strata) -> NDArray[np.str_]:
    """Name each patient's risk stratum.

    Args:
        probability: Risks, shape (n,).
        strata: The bounds.
    """
    place = (probability >= strata.medium).astype(int) + (probability >= strata.high)
    return np.array(STRATA, dtype=np.str_)[np.asarray(place, dtype=np.intp)]


def score(
    y: NDArray[np.float32],
    probability: NDArray[np.float64],
    *,
    threshold: float,
    strata: Strata,
    evaluation: Evaluation,
    seed: int,
) -> Scores:
    """Judge a model on a hospital's rows.

    Args:
        y: Labels, shape (n,).
        probability: The model's risks, shape (n,).
        threshold: Risk from which a patient counts as positive.
        strata: Bounds of the strata.
        evaluation: Resamples, confidence and the fewest patients of a count.
        seed: Of the bootstrap.
    """
    least = evaluation.min_count
    logit = log_odds(probability)
    counted = Counted.of(y, logit)
    wanted = (Metric.AUROC, Metric.AUPRC, Metric.BRIER)
    ranges = counted.intervals(wanted, evaluation.bootstrap, evaluation.confidence, seed)
    calibration = counted.calibration()
    decisions = Decisions.of(y, probability, threshold)
    return Scores(
        rows=len(y),
        positives=int(y.sum()),
        threshold=threshold,
        histogram=ScoreHistogram.of(y, logit, least).sparse(),
        auroc=counted.value(Metric.AUROC),
        auroc_ci=ranges[Metric.AUROC],
        auprc=counted.value(Metric.AUPRC),
        auprc_ci=ranges[Metric.AUPRC],
        brier=counted.value(Metric.BRIER),
        brier_ci=ranges[Metric.BRIER],
        accuracy=decisions.accuracy,
        precision=decisions.precision,
        recall=decisions.recall,
        f1=decisions.f1,
        confusion=Confusion(
            tn=_kept(decisions.tn, least),
            fp=_kept(decisions.fp, least),
            fn=_kept(decisions.fn, least),
            tp=_kept(decisions.tp, least),
        ),
        calibration_slope=calibration.slope if calibration else None,
        calibration_intercept=calibration.intercept if calibration else None,
        mean_predicted=calibration.mean_predicted if calibration else None,
        observed=calibration.observed if calibration else None,
        strata=_strata(y, probability, strata, least),
    )


def _strata(
    y: NDArray[np.float32], probability: NDArray[np.float64], strata: Strata, least: int
) -> dict[str, Stratum]:
    names = stratum_of(probability, strata)
    found = {}
    for name in STRATA:
        here = names == name
        rows = _kept(int(here.sum()), least)
        found[name] = Stratum(rows=rows, observed=float(y[here].mean()) if rows else None)
    return found


def _kept(count: int, least: int) -> int | None:
    """A count that may leave: 0 tells of nobody, a small one does not leave."""
    return count if count == 0 or count >= least else None
