"""The synthetic cohort: tables of the stroke study's columns for hospitals of any size.

It stands in where the real table may not be passed on. Its joint distribution is built of
published aggregates and relative risks alone (docs/synthetic.md), so it can give nothing of any
patient away; sizes and numbers of strokes are exact, and the AUROC of the true risk is stated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.data.synthetic.outcome import auroc, bmi_missing, draw_outcome, risk_score, true_risk
from tasks.data.synthetic.population import GENDERS, OLDEST, SMOKING, WORK, Flags, Population, draw
from tasks.errors import SettingsError, StudyError
from tasks.study import Share, Study

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: dict[str, tuple[str, ...]] = {
    "age": (),
    "gender": GENDERS,
    "ever_married": ("No", "Yes"),
    "Residence_type": ("Rural", "Urban"),
    "hypertension": (),
    "heart_disease": (),
    "work_type": WORK,
    "smoking_status": SMOKING,
    "avg_glucose_level": (),
    "bmi": (),
}
"""What the generator knows to make: each column with its categories."""
MISSING = "N/A"


@dataclass(frozen=True)
class Cohort:
    """A synthetic cohort.

    Attributes:
        tables: Per hospital its raw table: exactly ``study.raw_columns``, strings as in a CSV.
        oracle_auroc: AUROC of the true risk over all rows, which no model can beat but by chance.
        oracle_within: The same within each hospital that has both outcomes.
        positives: Strokes per hospital.
        risk: Per hospital the true risk of each row, in the table's order; never part of a table.
    """

    tables: dict[str, pd.DataFrame]
    oracle_auroc: float
    oracle_within: dict[str, float]
    positives: dict[str, int]
    risk: dict[str, Any] = field(repr=False)


def cohort(
    study: Study,
    patients: int | None = None,
    seed: int | None = None,
    *,
    hospitals: int | None = None,
) -> Cohort:
    """Make a cohort.

    Args:
        study: A study whose source is the synthetic cohort; its shares say how many patients each
            hospital has, at which rate, and whom it draws.
        patients: Patients in all, spread over the hospitals in proportion to their shares; by
            default the shares' own numbers.
        seed: The same seed and arguments make the same cohort; by default the study's seed.
        hospitals: That many hospitals, ``hospital-1`` to ``hospital-K``, which take the study's
            shares in turn; by default the study's hospitals.

    Raises:
        StudyError: The study asks for columns, categories or values that the generator does not
            make, or has no shares.
        SettingsError: There are too few patients for the hospitals, or for one stroke, or the
            seed is out of range.
    """
    import pandas as pd

    _check(study)
    seed = study.seed if seed is None else seed
    if not 0 <= seed < 2**31:
        raise SettingsError(f"--seed {seed}: a seed is 0 to {2**31 - 1}.")
    shares = _shares(study, hospitals)
    sizes = _sizes(shares, patients)
    # Python rounds half to even, which is the rule for counts.
    positives = {name: round(sizes[name] * share.positive_rate) for name, share in shares.items()}
    total = sum(sizes.values())
    if not 0 < sum(positives.values()) < total:
        raise SettingsError(
            f"a cohort of {total} patients has {sum(positives.values())} strokes at the study's "
            "rates; both outcomes are needed: ask for more patients."
        )
    # One stream for the ids and one a hospital, so that a hospital's rows depend on no other's.
    streams = np.random.SeedSequence(seed).spawn(len(shares) + 1)
    ids = _ids(total, np.random.default_rng(streams[0]))
    tables: dict[str, pd.DataFrame] = {}
    risks, outcomes = {}, {}
    start = 0
    for (name, share), stream in zip(shares.items(), streams[1:], strict=True):
        rng = np.random.default_rng(stream)
        people = draw(share, sizes[name], rng)
        score = risk_score(people)
        outcome = draw_outcome(score, positives[name], rng)
        risks[name], outcomes[name] = true_risk(score, positives[name]), outcome
        missing = bmi_missing(people, rng)
        values = _texts(people, missing)
        values[str(study.id)] = ids[start : start + sizes[name]].astype(str).astype(object)
        values[study.target.column] = _choose(
            (study.target.negative[0], study.target.positive[0]), outcome
        )
        tables[name] = pd.DataFrame({column: values[column] for column in study.raw_columns})
        start += sizes[name]
    within = {
        name: auroc(risks[name], outcomes[name])
        for name in shares
        if 0 < positives[name] < sizes[name]
    }
    overall = auroc(np.concatenate(list(risks.values())), np.concatenate(list(outcomes.values())))
    return Cohort(tables, overall, within, positives, risks)


def _check(study: Study) -> None:
    """Refuse a study whose columns the generator cannot fill."""
    if study.source.synthetic != "stroke":
        raise StudyError(
            f"study {study.name} has no synthetic cohort: source.synthetic must be stroke."
        )
    if study.id is None:
        raise StudyError(f"study {study.name}: a synthetic cohort needs id, the patient's column.")
    unknown = sorted(set(study.columns) - set(COLUMNS))
    if unknown:
        raise StudyError(
            f"study {study.name}: the synthetic cohort has no column {', '.join(unknown)}; it "
            f"makes {', '.join(COLUMNS)}."
        )
    for name, column in study.columns.items():
        lacking = sorted(set(COLUMNS[name]) - set(column.categories))
        if lacking or bool(COLUMNS[name]) != bool(column.categories):
            raise StudyError(
                f"study {study.name}: columns.{name}.categories must hold "
                f"{', '.join(COLUMNS[name]) or 'nothing'} for the synthetic cohort."
            )
    bmi = study.columns.get("bmi")
    if bmi is not None and MISSING not in bmi.missing:
        raise StudyError(
            f"study {study.name}: columns.bmi.missing must hold {MISSING} for the synthetic cohort."
        )


def _shares(study: Study, hospitals: int | None) -> dict[str, Share]:
    profiles = {name: site.share for name, site in study.hospitals.items() if site.share}
    if len(profiles) != len(study.hospitals):
        raise StudyError(f"study {study.name}: a synthetic cohort needs a share at each hospital.")
    if hospitals is None:
        return profiles
    if hospitals < 1:
        raise SettingsError(f"--hospitals {hospitals}: ask for 1 or more.")
    turns = list(profiles.values())
    return {f"hospital-{k + 1}": turns[k % len(turns)] for k in range(hospitals)}


def _sizes(shares: dict[str, Share], patients: int | None) -> dict[str, int]:
    rows = np.array([share.rows for share in shares.values()], dtype=np.int64)
    if patients is None:
        return dict(zip(shares, rows.tolist(), strict=True))
    # Largest remainder, in integers: exact at any size, and the first wins a tie.
    whole, rest = np.divmod(rows * patients, rows.sum())
    whole[np.argsort(-rest, kind="stable")[: patients - int(whole.sum())]] += 1
    if patients < 1 or whole.min() < 1:
        raise SettingsError(
            f"--patients {patients}: too few for {len(shares)} hospitals, the smallest of which "
            "would have none."
        )
    return dict(zip(shares, whole.tolist(), strict=True))


def _ids(rows: int, rng: np.random.Generator) -> Any:
    """Unique ids in no order, which tell neither a row's place nor its hospital."""
    return rng.permutation(10_000 + np.cumsum(rng.integers(1, 15, rows)))


def _texts(people: Population, missing: Flags) -> dict[str, Any]:
    """Each column as strings; numbers by look-up, which is many times faster than formatting."""
    glucose = np.array([f"{value / 100:.2f}" for value in range(people.glucose.max() + 1)], object)
    bmi = np.array([f"{value / 10:.1f}" for value in range(people.bmi.max() + 1)], object)
    months = np.array([f"{month / 12:.2f}" for month in range(25)], object)
    years = np.array([str(year) for year in range(OLDEST + 1)], object)
    whole = np.round(people.age).astype(np.int64)
    young = np.round(np.minimum(people.age, 2) * 12).astype(np.int64)
    smoking = np.where(people.smoking_known, people.smoking, SMOKING.index("Unknown"))
    return {
        "age": np.where(people.age < 2, months[young], years[whole]),
        "gender": _choose(GENDERS, people.gender),
        "ever_married": _choose(COLUMNS["ever_married"], people.married),
        "Residence_type": _choose(COLUMNS["Residence_type"], people.urban),
        "hypertension": _choose(("0", "1"), people.hypertension),
        "heart_disease": _choose(("0", "1"), people.heart_disease),
        "work_type": _choose(WORK, people.work),
        "smoking_status": _choose(SMOKING, smoking),
        "avg_glucose_level": glucose[people.glucose],
        "bmi": np.where(missing, MISSING, bmi[people.bmi]),
    }


def _choose(categories: Sequence[str], codes: Any) -> Any:
    return np.array(categories, dtype=object)[codes.astype(np.int64)]
