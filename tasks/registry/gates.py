"""The conditions of promotion: each with its value, its limit and a sentence that says how it went.

A gate whose other model does not exist (no champion yet, no centralized model because pooling is
forbidden) cannot be judged: it passes and is marked as not applicable, so that the list shows what
was not checked. A gate whose figure is undefined fails, for nothing is known to be well. So does
the gate against a champion that is not comparable (``comparable.py``), until the study lets it be.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tasks.evaluate.results import Comparison, Difference
from tasks.study import Gates


class Gate(BaseModel):
    """One condition.

    Attributes:
        name: Such as ``ratio_to_central``.
        passed: Whether the model may be promoted as far as this gate goes.
        applicable: Whether there was anything to judge.
        value: The figure; None where undefined or not applicable.
        limit: The study's limit; two numbers for a range.
        detail: A sentence for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    applicable: bool = True
    value: float | None
    limit: float | tuple[float, float]
    detail: str


def judge(comparison: Comparison, gates: Gates) -> list[Gate]:
    """Judge the federated model by a study's gates.

    Args:
        comparison: The run's results.
        gates: The study's; one that is None is not checked.

    Returns:
        The gates that the study sets, in a fixed order.
    """
    checks = (_central, _champion, _slope, _error, _reference, _spread)
    judged = (check(comparison, gates) for check in checks)
    return [gate for gate in judged if gate is not None]


def failures(gates: list[Gate]) -> str:
    """One sentence on each gate that failed, empty if none did."""
    return " ".join(gate.detail for gate in gates if not gate.passed)


def _compared(
    name: str, found: Difference | None, limit: float, what: str, comparison: Comparison
) -> Gate:
    """Ask at least ``limit`` of the value; its interval stands beside it and decides nothing."""
    if found is None:
        return _undefined(name, limit, what)
    passed = found.value >= limit
    verdict = f"at least {limit:g} is asked"
    if not passed:
        verdict += f", {_by(limit - found.value)} too low"
    detail = f"{what} is {found.value:.4f}{_interval(found, comparison)}; {verdict}."
    return Gate(name=name, passed=passed, value=found.value, limit=limit, detail=detail)


def _at_most(name: str, value: float | None, limit: float, what: str) -> Gate:
    if value is None:
        return _undefined(name, limit, what)
    passed = value <= limit
    verdict = f"at most {limit:g} is allowed"
    if not passed:
        verdict += f", {_by(value - limit)} too high"
    detail = f"{what} is {value:.4f}; {verdict}."
    return Gate(name=name, passed=passed, value=value, limit=limit, detail=detail)


def _undefined(name: str, limit: float | tuple[float, float], what: str) -> Gate:
    detail = f"{what} is undefined on these test rows, so the gate fails."
    return Gate(name=name, passed=False, value=None, limit=limit, detail=detail)


def _inapplicable(name: str, limit: float, why: str) -> Gate:
    detail = f"Not applicable: {why}."
    return Gate(name=name, passed=True, applicable=False, value=None, limit=limit, detail=detail)


def _by(amount: float) -> str:
    return f"{amount:.4f}" if amount >= 0.00005 else f"{amount:.1e}"


def _interval(found: Difference, comparison: Comparison) -> str:
    if found.ci is None:
        return " (no interval)"
    low, high = found.ci
    kind = found.pairing(len(comparison.hospitals))
    return f" ({comparison.confidence:.0%} interval {low:.4f} to {high:.4f}, {kind})"


def _central(comparison: Comparison, gates: Gates) -> Gate | None:
    limit = gates.min_ratio_to_central
    if limit is None:
        return None
    name = "ratio_to_central"
    if comparison.central is None:
        return _inapplicable(name, limit, "there is no centralized model, for rows are not pooled")
    what = (
        "The federated AUROC as a share of the centralized one, both without hospitals' intercepts,"
    )
    return _compared(name, comparison.ratio, limit, what, comparison)


def _champion(comparison: Comparison, gates: Gates) -> Gate | None:
    drop = gates.max_drop_to_champion
    if drop is None:
        return None
    name = "not_worse_than_champion"
    version, differs = comparison.champion_version, ", ".join(comparison.champion_differs)
    if version is None:
        return _inapplicable(name, -drop, "there is no champion yet")
    if comparison.champion_source == "synthetic" and not comparison.synthetic:
        why = f"the champion (version {version}) learned from synthetic patients, these are real"
        return _inapplicable(name, -drop, why)
    if differs and gates.replaces == version:
        why = f"the study lets version {version} be replaced, which is not comparable: {differs}"
        return _inapplicable(name, -drop, why)
    if differs:
        detail = (
            f"The champion (version {version}) is not comparable: {differs}. If this model shall "
            f"replace it all the same, write gates.replaces: {version} into the study's file."
        )
        return Gate(name=name, passed=False, value=None, limit=-drop, detail=detail)
    what = f"The federated AUROC less that of the champion (version {version})"
    return _compared(name, comparison.champion_difference, -drop, what, comparison)


def _slope(comparison: Comparison, gates: Gates) -> Gate | None:
    if gates.calibration_slope is None:
        return None
    low, high = gates.calibration_slope
    slope = comparison.federated.calibration.slope
    what = "The federated model's calibration slope"
    if slope is None:
        return _undefined("calibration_slope", (low, high), what)
    passed = low <= slope <= high
    verdict = f"{low:g} to {high:g} is allowed"
    if not passed:
        verdict += (
            f", {_by(low - slope)} too low" if slope < low else f", {_by(slope - high)} above"
        )
    return Gate(
        name="calibration_slope",
        passed=passed,
        value=slope,
        limit=(low, high),
        detail=f"{what} is {slope:.4f}; {verdict}.",
    )


def _error(comparison: Comparison, gates: Gates) -> Gate | None:
    if gates.max_calibration_error is None:
        return None
    return _at_most(
        "calibration_error",
        comparison.federated.calibration.error,
        gates.max_calibration_error,
        "The difference between the mean predicted and the observed risk",
    )


def _reference(comparison: Comparison, gates: Gates) -> Gate | None:
    limit = gates.beats_reference_by
    if limit is None:
        return None
    if comparison.reference is None:
        return _inapplicable("beats_reference", limit, "there is no reference model")
    what = "The federated AUROC less the single-feature reference's"
    return _compared("beats_reference", comparison.reference_difference, limit, what, comparison)


def _spread(comparison: Comparison, gates: Gates) -> Gate | None:
    if gates.max_spread is None:
        return None
    what = "The federated AUROC's spread over the hospitals"
    return _at_most("spread", comparison.federated.spread, gates.max_spread, what)
