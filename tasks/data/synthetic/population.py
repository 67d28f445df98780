"""Who the synthetic patients are: their covariates, drawn one after the other given age.

Every table is a published aggregate or, where its comment says so, a design choice;
docs/synthetic.md lists the sources by the comments' short names. Nothing here was fitted to
patients' rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.study import Share

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]

OLDEST = 95
"""Ages are drawn in whole years from 0 to here."""
YEARS = np.arange(OLDEST + 1)

# Census 2010: share of the population in five-year bands from 0-4 to 80-84, then 85 and over.
CENSUS = (6.5, 6.6, 6.7, 7.1, 7.0, 6.8, 6.5, 6.5, 6.8, 7.4, 7.2, 6.4, 5.4, 4.0, 3.0, 2.4, 1.9, 1.8)

# UN 2018: 55 % of people live in urban areas.
URBAN = 0.55

# Each table is (age, share) and is read by linear interpolation between the ages.
Table = tuple[tuple[float, float], ...]

# CPS 2010: share of people that have ever married, both sexes.
EVER_MARRIED: Table = (
    (17, 0.0), (18, 0.02), (22, 0.16), (27, 0.45), (32, 0.68), (37, 0.79), (42, 0.83),
    (50, 0.87), (60, 0.92), (70, 0.95), (80, 0.96),
)  # fmt: skip
# NHANES 2009-12: measured or treated hypertension at 18-39, 40-59 and 60 or more is 7.1, 31.7 and
# 66.3 %, of which NCD-RisC finds 54 % diagnosed: a history knows only those.
HYPERTENSION: Table = ((15, 0.0), (28, 0.038), (50, 0.171), (70, 0.358), (90, 0.40))
# NHIS 2012: coronary heart disease at 18-44, 45-64, 65-74 and 75 or more is 0.9, 7.1, 16.2 and
# 25.8 %.
HEART_DISEASE: Table = ((15, 0.0), (31, 0.009), (55, 0.071), (70, 0.162), (82, 0.258))
# NHANES 1999-2002: diabetes, diagnosed or not, at 20-39, 40-59 and 60 or more is 2.3, 9.8 and
# 21 %; SEARCH: about 0.2 % of children.
DIABETES: Table = ((0, 0.002), (19, 0.004), (30, 0.017), (50, 0.098), (70, 0.21), (90, 0.20))
# NHIS 2012: current smokers at 18-24, 25-44, 45-64 and 65 or more are 17.3, 21.6, 19.5 and 8.9 %.
SMOKES: Table = (
    (12, 0.0),
    (16, 0.07),
    (21, 0.173),
    (35, 0.216),
    (55, 0.195),
    (72, 0.089),
    (90, 0.04),
)
# NHIS 2012 and 2018: 55 % of ever smokers have quit; 39 % of those of 65 or more did smoke once.
FORMERLY: Table = ((15, 0.0), (21, 0.04), (35, 0.16), (55, 0.26), (70, 0.39), (90, 0.39))
# NHANES 2007-10: mean body mass index by age.
BMI_MEAN: Table = (
    (0, 17.0), (2, 16.6), (6, 16.6), (10, 19.5), (15, 23.4), (19, 25.4), (25, 27.3),
    (35, 28.7), (45, 29.0), (55, 29.3), (65, 29.3), (75, 28.3), (85, 26.8),
)  # fmt: skip
# The same report's percentiles: standard deviation of the logarithm, narrower in children.
BMI_SPREAD: Table = ((0, 0.09), (6, 0.14), (12, 0.21), (20, 0.23), (65, 0.21), (85, 0.19))
# Diabetes in America, NHANES 2005-10: plasma glucose of people without diabetes, mg/dL.
GLUCOSE_MEAN: Table = ((0, 91.0), (20, 93.0), (40, 97.0), (60, 102.0), (80, 105.0))
# BLS 2010: self-employment rises with age, most of all past the age of retirement.
SELF_EMPLOYED: Table = ((16, 0.01), (25, 0.05), (40, 0.11), (55, 0.16), (67, 0.27), (80, 0.33))
# BLS 2010: 15 % of the employed work for a government.
GOVERNMENT: Table = ((16, 0.02), (25, 0.11), (40, 0.16), (60, 0.17), (80, 0.13))
# CPS 2010: people with no work history; nearly all of them are young.
NEVER_WORKED: Table = ((13, 0.03), (15, 0.30), (18, 0.18), (22, 0.06), (28, 0.01), (80, 0.01))
# A category of the study that holds everyone below working age (ILO convention 138: 15 years).
CHILDREN: Table = ((13, 0.97), (14, 0.85), (16, 0.30), (18, 0.0))
# NHAMCS 2010: share of emergency visits that arrive by ambulance.
EMERGENCY: Table = ((8, 0.045), (20, 0.116), (35, 0.126), (55, 0.197), (70, 0.29), (85, 0.43))
# Design: a child is seldom asked whether it smokes, and about 20 % of adults have no record.
SMOKING_UNKNOWN: Table = ((9, 0.95), (12, 0.85), (15, 0.55), (18, 0.28), (30, 0.22), (80, 0.18))

WORK = ("children", "Govt_job", "Never_worked", "Private", "Self-employed")
GENDERS = ("Female", "Male", "Other")
SMOKING = ("formerly smoked", "never smoked", "smokes", "Unknown")
# NAMCS 2010: women make 58 % of visits. Design: 0.1 % have another gender on record.
GENDER_SHARES = (0.579, 0.420, 0.001)

# Odds ratios between the covariates.
MALE_SMOKES = 1.37  # NHIS 2012: 20.5 % of men and 15.8 % of women smoke
MALE_HEART = 1.65  # NHIS 2012: 7.9 % of men and 5.1 % of women, adjusted for age
SMOKES_HEART = 2.87  # INTERHEART
HYPERTENSION_HEART = 1.91  # INTERHEART
DIABETES_HEART = 2.37  # INTERHEART
HYPERTENSION_DIABETES = 2.43  # ARIC (Gress 2000)
BMI_DIABETES = 1.87 ** (1 / 4.5)  # Vazquez 2007: 1.87 a standard deviation of BMI
BMI_HYPERTENSION = 1.07  # NHANES 2009-12: 20, 26 and 39 % in normal, over- and obese weight
# Marston 2014: patients without a record are less often smokers. Design: weights of "no record".
UNKNOWN_BY_STATUS = {"formerly smoked": 0.9, "never smoked": 1.15, "smokes": 0.7}

# Diabetes in America: fasting 153 mg/dL in treated diabetes; through the day about 20 higher.
DIABETIC_GLUCOSE = 175.0
DIABETIC_SPREAD = 0.30  # standard deviation of the logarithm
NORMAL_SPREAD = 0.19  # the same without diabetes: casual, not fasting, measurements


@dataclass(frozen=True)
class Population:
    """The complete covariates of n patients, before anything goes missing. Arrays of length n.

    Attributes:
        age: Years; children below 2 in twelfths of a year.
        gender: Index into ``GENDERS``.
        married: Whether ever married.
        urban: Whether the residence is urban.
        work: Index into ``WORK``.
        hypertension: A history of hypertension.
        heart_disease: A history of heart disease.
        diabetes: Diabetes, which shows in glucose only.
        glucose: Average glucose in hundredths of mg/dL.
        bmi: Body mass index in tenths of kg/m².
        smoking: The true status, an index into ``SMOKING`` below ``Unknown``.
        smoking_known: Whether the record says so.
        emergency: Whether the patient was brought in as an emergency; no column tells it.
    """

    age: Floats
    gender: Codes
    married: Flags
    urban: Flags
    work: Codes
    hypertension: Flags
    heart_disease: Flags
    diabetes: Flags
    glucose: Codes
    bmi: Codes
    smoking: Codes
    smoking_known: Flags
    emergency: Flags


def by_year(table: Table) -> Floats:
    """Read a table at each whole year of age from 0 to ``OLDEST``."""
    ages, shares = zip(*table, strict=True)
    return np.asarray(np.interp(YEARS, ages, shares), dtype=np.float64)


def age_structure() -> Floats:
    """Share of the population at each year of age; sums to 1.

    Within a band all years are equal; past 85 they fall off as survival does (halving in 5 years).
    """
    years = np.repeat(np.array(CENSUS[:-1]) / 5, 5)
    oldest = 0.5 ** (np.arange(OLDEST + 1 - 85) / 5)
    whole = np.concatenate([years, CENSUS[-1] * oldest / oldest.sum()])
    shares: Floats = whole / whole.sum()
    return shares


def work_by_year() -> Floats:
    """Share of each kind of work at each year of age, ``(OLDEST + 1, len(WORK))``."""
    children, never = by_year(CHILDREN), by_year(NEVER_WORKED)
    shares = np.zeros((len(YEARS), len(WORK)))
    shares[:, 0] = np.where(YEARS < 18, children, 0)
    shares[:, 2] = np.minimum(never, 1 - shares[:, 0])
    rest = np.where(YEARS < 14, 0, 1 - shares[:, 0] - shares[:, 2])
    shares[:, 1] = rest * by_year(GOVERNMENT)
    shares[:, 4] = rest * by_year(SELF_EMPLOYED)
    shares[:, 3] = rest - shares[:, 1] - shares[:, 4]
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def draw(share: Share, rows: int, rng: np.random.Generator) -> Population:
    """Draw the patients of one hospital.

    The hospital draws from the census as its share says: a Gaussian weight on age and relative
    weights on work and residence, the same preferences by which a real table is dealt out.

    Args:
        share: The hospital's preferences.
        rows: Patients, at least 1.
        rng: Where the randomness comes from.

    Returns:
        The patients, in no order.
    """
    work_given_age = work_by_year() * _weights(share, "work_type", WORK)
    weight = age_structure() * work_given_age.sum(axis=1)
    if "age" in share.prefer_mean:
        centre, spread = share.prefer_mean["age"]
        weight = weight * np.exp(-0.5 * ((YEARS - centre) / spread) ** 2)
    year = np.searchsorted(np.cumsum(weight / weight.sum())[:-1], rng.random(rows), side="right")
    # Below two years of age, months count and are recorded as a fraction of a year.
    months = np.maximum(np.round((year + rng.random(rows)) * 12), 1) / 12
    age = np.where(year < 2, months, year).astype(np.float64)

    cumulated = np.cumsum(work_given_age / work_given_age.sum(axis=1, keepdims=True), axis=1)
    work = (rng.random(rows)[:, None] > cumulated[year, :-1]).sum(axis=1)
    urban_weight, rural_weight = _weights(share, "Residence_type", ("Urban", "Rural"))
    urban_share = URBAN * urban_weight / (URBAN * urban_weight + (1 - URBAN) * rural_weight)
    urban = rng.random(rows) < urban_share
    gender_shares = np.array(GENDER_SHARES) * _weights(share, "gender", GENDERS)
    gender_edges = np.cumsum(gender_shares / gender_shares.sum())[:-1]
    gender = np.searchsorted(gender_edges, rng.random(rows), side="right")
    male = (gender == GENDERS.index("Male")) - GENDER_SHARES[1]
    married = rng.random(rows) < np.where(work == 0, 0.0, by_year(EVER_MARRIED)[year])

    smoking = _draw_smoking(year, male, rng)
    spread_of_bmi = by_year(BMI_SPREAD)[year]
    bmi_mean = by_year(BMI_MEAN)[year]
    # A log-normal variable whose mean, not median, is the table's.
    bmi = bmi_mean * np.exp(spread_of_bmi * rng.standard_normal(rows) - spread_of_bmi**2 / 2)
    bmi = np.clip(bmi, 10.5, 75)
    # A log-linear effect of a varying covariate raises the mean odds by half its variance.
    deviation, variance = bmi - bmi_mean, (bmi_mean * spread_of_bmi) ** 2
    slope = np.log(BMI_HYPERTENSION)
    hypertension = _logistic(
        by_year(HYPERTENSION)[year], slope * deviation - slope**2 * variance / 2, rng
    )
    hypertension_excess = hypertension - by_year(HYPERTENSION)[year]
    slope = np.log(BMI_DIABETES)
    diabetes = _logistic(
        by_year(DIABETES)[year],
        slope * deviation
        - slope**2 * variance / 2
        + np.log(HYPERTENSION_DIABETES) * hypertension_excess,
        rng,
    )
    heart = _logistic(
        by_year(HEART_DISEASE)[year],
        np.log(MALE_HEART) * male
        + np.log(SMOKES_HEART) * ((smoking == 2) - by_year(SMOKES)[year])
        + np.log(HYPERTENSION_HEART) * hypertension_excess
        + np.log(DIABETES_HEART) * (diabetes - by_year(DIABETES)[year]),
        rng,
    )
    spread_of_glucose = np.where(diabetes, DIABETIC_SPREAD, NORMAL_SPREAD)
    centre_of_glucose = np.where(diabetes, DIABETIC_GLUCOSE, by_year(GLUCOSE_MEAN)[year])
    glucose = centre_of_glucose * np.exp(
        spread_of_glucose * rng.standard_normal(rows) - spread_of_glucose**2 / 2
    )
    unknown = by_year(SMOKING_UNKNOWN)[year]
    factor = np.array([UNKNOWN_BY_STATUS[status] for status in SMOKING[:3]])[smoking]
    return Population(
        age=age,
        gender=gender,
        married=married,
        urban=urban,
        work=work,
        hypertension=hypertension,
        heart_disease=heart,
        diabetes=diabetes,
        glucose=np.round(np.clip(glucose, 45, 350) * 100).astype(np.int64),
        bmi=np.round(bmi * 10).astype(np.int64),
        smoking=smoking,
        smoking_known=rng.random(rows) >= np.minimum(unknown * factor, 0.98),
        emergency=rng.random(rows) < by_year(EMERGENCY)[year],
    )


def _draw_smoking(year: Codes, male: Floats, rng: np.random.Generator) -> Codes:
    smokes = _logistic(by_year(SMOKES)[year], np.log(MALE_SMOKES) * male, rng)
    # Of those that do not smoke now, the share that once did.
    formerly = by_year(FORMERLY)[year] / (1 - by_year(SMOKES)[year])
    once = rng.random(len(year)) < formerly
    return np.where(smokes, 2, np.where(once, 0, 1)).astype(np.int64)


def _logistic(prevalence: Floats, shift: Floats, rng: np.random.Generator) -> Flags:
    """Draw flags whose log-odds are the prevalence's, shifted by centred covariates."""
    odds = prevalence / (1 - prevalence) * np.exp(shift)
    drawn: Flags = rng.random(len(odds)) < odds / (1 + odds)
    return drawn


def _weights(share: Share, column: str, categories: tuple[str, ...]) -> Floats:
    given = share.prefer.get(column, {})
    return np.array([given.get(category, 1.0) for category in categories])
