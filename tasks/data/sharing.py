"""Decide which hospital a patient of a table that is dealt out goes to (a non-IID plan).

A demonstration only: the hospitals get the sizes that their shares say, positive rates in the
ratio that they say, and patients who differ in age, residence or work. The draw depends on the
seed and on each patient's own row, never on the order of the rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.errors import DataError
from tasks.study import Share, Study


@dataclass(frozen=True)
class Patients:
    """What the draw needs to know of the patients; all lists are as long.

    Attributes:
        keys: One key a patient: the id, or a digest of the row and its occurrence.
        positive: Whether the patient has the outcome.
        values: Raw values of the columns that some hospital prefers by.
    """

    keys: list[str]
    positive: list[bool]
    values: dict[str, list[str]]


@dataclass(frozen=True)
class Deal:
    """Who goes where.

    Attributes:
        hospitals: A hospital for each patient.
        scale: The factor on the shares' positive rates.
    """

    hospitals: list[str]
    scale: float


def largest_remainder(quotas: Sequence[float], total: int) -> list[int]:
    """Round quotas so that they add up to ``total`` (Hamilton's method; ties by position)."""
    floors = [math.floor(quota + 1e-9) for quota in quotas]
    order = sorted(range(len(quotas)), key=lambda i: (floors[i] - quotas[i], i))
    for i in order[: max(0, total - sum(floors))]:
        floors[i] += 1
    return floors


def sizes(shares: Mapping[str, Share], patients: int, positives: int) -> dict[str, tuple[int, int]]:
    """Work out each hospital's patients and positives.

    Args:
        shares: By hospital.
        patients: Patients in the table; if it is not what the shares add up to, they apply in
            proportion.
        positives: Those with the outcome, all of whom are dealt out.

    Returns:
        Patients and positives by hospital.
    """
    wanted = sum(share.rows for share in shares.values())
    rows = largest_remainder(
        [share.rows * patients / wanted for share in shares.values()], patients
    )
    hoped = [n * share.positive_rate for n, share in zip(rows, shares.values(), strict=True)]
    if sum(hoped) == 0:
        hoped = [float(n) for n in rows]
    quotas = _capped(hoped, rows, positives)
    with_outcome = largest_remainder(quotas, positives)
    return {name: (n, p) for name, n, p in zip(shares, rows, with_outcome, strict=True)}


def _capped(hoped: list[float], rows: list[int], positives: int) -> list[float]:
    """Scale so that the sum is ``positives`` and no hospital has more positives than patients."""
    full: set[int] = set()
    while True:
        left = positives - sum(rows[i] for i in full)
        open_sum = sum(h for i, h in enumerate(hoped) if i not in full)
        factor = left / open_sum if open_sum else 0.0
        quotas = [float(rows[i]) if i in full else h * factor for i, h in enumerate(hoped)]
        over = {i for i, q in enumerate(quotas) if i not in full and q > rows[i]}
        if not over:
            return quotas
        full |= over


def share_out(study: Study, patients: Patients) -> Deal:
    """Give every patient to one hospital.

    Hospitals draw in the study's order, without replacement, each patient with a chance in
    proportion to the hospital's weight for him (Efraimidis and Spirakis 2006: the largest
    ``u ** (1 / weight)`` win); the last takes who is left.

    Args:
        study: Shares and seed.
        patients: The patients.

    Raises:
        DataError: There are fewer patients than hospitals, or nobody has the outcome.
    """
    shares = {n: h.share for n, h in study.hospitals.items() if h.share is not None}
    total, positives = len(patients.keys), sum(patients.positive)
    if total < len(shares):
        raise DataError(
            f"the table has {total} patients, too few to deal out to {len(shares)} hospitals."
        )
    if positives == 0:
        raise DataError(
            f"column {study.target.column}: none of {total} patients is positive (one of "
            f"{', '.join(study.target.positive)}). Check target.positive."
        )
    counts = sizes(shares, total, positives)
    values = patients.values
    weights = {name: _weights(study, share, values, total) for name, share in shares.items()}
    chosen = [""] * total
    for outcome in (True, False):
        pool = [i for i in range(total) if patients.positive[i] is outcome]
        for name in shares:
            wanted = counts[name][1] if outcome else counts[name][0] - counts[name][1]
            ranked = sorted(
                pool,
                key=lambda i: (
                    -_ticket(study.seed, name, patients.keys[i], weights[name][i]),
                    patients.keys[i],
                ),
            )
            for i in ranked[:wanted]:
                chosen[i] = name
            pool = ranked[wanted:]
    rate = sum(counts[name][0] * share.positive_rate for name, share in shares.items())
    return Deal(hospitals=chosen, scale=positives / rate if rate else 1.0)


def _ticket(seed: int, hospital: str, key: str, weight: float) -> float:
    digest = hashlib.sha256(f"{seed}:{hospital}:{key}".encode()).digest()
    uniform = (int.from_bytes(digest[:7], "big") + 0.5) / 2**56
    # The logarithm of u ** (1 / weight), which does not underflow for small weights.
    return math.log(uniform) / weight


def _weights(
    study: Study, share: Share, values: Mapping[str, list[str]], total: int
) -> list[float]:
    """The hospital's weight of each patient; one whose value is not known weighs as the mean."""
    product = [1.0] * total
    for column, (centre, spread) in share.prefer_mean.items():
        gaussian: list[float | None] = []
        spelling = study.spelling(column, marks=True)
        for text in values[column]:
            number = _number(spelling.known(text) or "")
            distance = None if number is None else (number - centre) / spread
            gaussian.append(None if distance is None else max(math.exp(-(distance**2) / 2), 1e-12))
        known = [weight for weight in gaussian if weight is not None]
        mean = math.fsum(known) / len(known) if known else 1.0
        product = [p * (mean if w is None else w) for p, w in zip(product, gaussian, strict=True)]
    for column, preferred in share.prefer.items():
        spelling = study.spelling(column, marks=True)
        by_value = {spelling.known(category): weight for category, weight in preferred.items()}
        product = [
            p * by_value.get(spelling.known(text), 1.0)
            for p, text in zip(product, values[column], strict=True)
        ]
    return product


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def columns_of_interest(study: Study) -> list[str]:
    """The columns that the draw looks at, beside id and target."""
    found: dict[str, None] = {}
    for hospital in study.hospitals.values():
        if hospital.share is not None:
            found.update(dict.fromkeys([*hospital.share.prefer_mean, *hospital.share.prefer]))
    return list(found)
