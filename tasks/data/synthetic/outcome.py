"""Who of the synthetic patients has a stroke, and which of their values are not recorded.

The outcome is a logistic model with published relative risks and one intercept a hospital, drawn
so that each hospital has an exact number of strokes. Sources: docs/synthetic.md.
"""

from __future__ import annotations

import numpy as np

from tasks.data.synthetic.population import GENDERS, Flags, Floats, Population

# Log-odds of a stroke. At the few percent of a cohort, odds and risk ratios are nearly the same.
# AHA 2011: the risk doubles with ten years of age. Framingham (Wolf 1991) has 1.66 in men and 1.93
# in women at an equal relative risk of hypertension; here that falls with age, which leaves more to
# age itself. The cohort's prevalence by age is then that of BRFSS 2010 (.7, 2.9 and 8.3 %).
DECADE_RISK = 2.0
PRIOR_HEART_DISEASE = 1.61  # Framingham (Wolf 1991): 1.68 in men, 1.54 in women; geometric mean
# Framingham (Wolf 1991): 1.40 in men and 1.72 in women with diabetes, whose glucose lies about
# 90 mg/dL higher; ERFC 2010: no association within the normal range.
DIABETES_RISK, DIABETES_GAP, NORMAL_GLUCOSE = 1.55, 90.0, 100.0
BMI_RISK = 1.07 ** (1 / 4.56)  # ERFC 2011: 1.07 a standard deviation, beside the other factors
# Framingham, in AHA 2011, table 6-2: relative risk of hypertension at 50, 60, 70, 80 and 90 years.
HYPERTENSION_RISK = ((50, 4.0), (60, 3.0), (70, 2.0), (80, 1.4), (90, 1.0))
# Shinton 1989: smokers below 55, at 55-74 and from 75 on; former smokers below 75, and at all ages.
SMOKING_RISK = ((50, 2.9), (65, 1.8), (80, 1.1))
FORMER_RISK = ((65, 1.5), (80, 1.0))
# AHA 2009: incidence of men over women's at 55-64, 65-74, 75-84 and 85 or more.
MALE_RISK = ((60, 1.25), (70, 1.50), (80, 1.07), (88, 0.76))
# GWTG-Stroke: 63.7 % of strokes come by ambulance, beside 38 % of all visits past 65 (NHAMCS).
# Design: half of the strokes are why the patient came, half are history, so .51 of them come so:
# (.51 / .49) / (.38 / .62). Not a cause but a sign, and no column of the table has it.
EMERGENCY_RISK = 1.7

# Share of body mass indices that are not recorded, as log-odds.
MISSING_BASE = np.log(0.03 / 0.97)  # design: the study is of patients who were examined
MISSING_EMERGENCY = np.log(0.15 / 0.85) - MISSING_BASE  # PMID 23375748: 15 % were not weighed
MISSING_YOUNG = np.log(1.6)  # Bhaskaran 2013: completeness rises with age (16-34 here)
MISSING_MALE = np.log(1.3)  # Bhaskaran 2013: higher among women
MISSING_UNASKED = np.log(1.5)  # Petersen 2019: indicators are recorded, or not, together
# Bhaskaran 2013: recorded values lie below a survey's, so the heavy are weighed less (each kg/m²
# above 30).
MISSING_HEAVY = 0.04


def risk_score(people: Population) -> Floats:
    """The log-odds of a stroke up to the hospital's intercept, length n."""
    age = people.age
    male = people.gender == GENDERS.index("Male")
    glucose = people.glucose / 100
    bmi = people.bmi / 10
    score: Floats = (
        np.log(DECADE_RISK) / 10 * age
        + people.hypertension * _log_at(HYPERTENSION_RISK, age)
        + people.heart_disease * np.log(PRIOR_HEART_DISEASE)
        + np.log(DIABETES_RISK) / DIABETES_GAP * np.maximum(glucose - NORMAL_GLUCOSE, 0)
        + np.log(BMI_RISK) * (bmi - 25)
        + (people.smoking == 2) * _log_at(SMOKING_RISK, age)
        + (people.smoking == 0) * _log_at(FORMER_RISK, age)
        + male * _log_at(MALE_RISK, age)
        + people.emergency * np.log(EMERGENCY_RISK)
    )
    return score


def true_risk(score: Floats, positives: int) -> Floats:
    """Turn scores into probabilities with the intercept that makes them sum to ``positives``.

    Args:
        score: Log-odds up to a constant, length n.
        positives: Expected number, from 0 to n.

    Returns:
        Probabilities, length n.
    """
    rows = len(score)
    if positives in (0, rows):
        return np.full(rows, positives / rows)
    low, high = -score.max() - 40, -score.min() + 40
    for _ in range(100):
        middle = (low + high) / 2
        if _sigmoid(score + middle).sum() < positives:
            low = middle
        else:
            high = middle
        if high - low < 1e-10:
            break
    return _sigmoid(score + (low + high) / 2)


def draw_outcome(score: Floats, positives: int, rng: np.random.Generator) -> Flags:
    """Draw exactly ``positives`` strokes, each patient's chance being the risk model's.

    Scores plus logistic noise are the logistic model in its latent form; taking the highest puts
    the threshold where the count is exact. This is Pareto sampling (Rosén 1997), whose inclusion
    probabilities are those of ``true_risk`` to a negligible error at such counts.
    """
    uniform = rng.random(len(score))
    # At 0 the logarithm is minus infinity, which is right: the patient comes last.
    with np.errstate(divide="ignore"):
        latent = score + np.log(uniform) - np.log1p(-uniform)
    outcome = np.zeros(len(score), dtype=np.bool_)
    if positives:
        outcome[np.argpartition(-latent, positives - 1)[:positives]] = True
    return outcome


def bmi_missing(people: Population, rng: np.random.Generator) -> Flags:
    """Which body mass indices are not recorded.

    At random given age, sex and the smoking record; not at random in two ways: the heavy are
    weighed less, and so are emergencies, which no column tells and which strokes often are.
    """
    log_odds = (
        MISSING_BASE
        + people.emergency * MISSING_EMERGENCY
        + ((people.age >= 16) & (people.age < 35)) * MISSING_YOUNG
        + (people.gender == GENDERS.index("Male")) * MISSING_MALE
        + ~people.smoking_known * MISSING_UNASKED
        + MISSING_HEAVY * np.maximum(people.bmi / 10 - 30, 0)
    )
    missing: Flags = rng.random(len(log_odds)) < _sigmoid(log_odds)
    return missing


def auroc(risk: Floats, outcome: Flags) -> float:
    """Area under the ROC curve: the chance that a positive ranks above a negative, ties half.

    Args:
        risk: Scores, length n.
        outcome: Outcomes, length n, both kinds present.
    """
    negatives = np.sort(risk[~outcome])
    below = np.searchsorted(negatives, risk[outcome], side="left")
    not_above = np.searchsorted(negatives, risk[outcome], side="right")
    return float((below + not_above).mean() / 2 / len(negatives))


def _sigmoid(log_odds: Floats) -> Floats:
    chance: Floats = 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))
    return chance


def _log_at(risks: tuple[tuple[int, float], ...], age: Floats) -> Floats:
    """Log relative risk at an age: linear between the published ages, constant beyond them."""
    ages, ratios = zip(*risks, strict=True)
    return np.interp(age, ages, np.log(ratios))
