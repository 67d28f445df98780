"""How much each hospital's update counts."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.study import Weighting


def weigh(weighting: Weighting, rows: Mapping[str, int]) -> dict[str, float]:
    """Give each hospital its share.

    Args:
        weighting: The study's choice.
        rows: Training rows by hospital, above 0.

    Returns:
        Shares that add up to 1, sorted by hospital.
    """
    names = sorted(rows)
    if weighting.kind == "equal":
        return dict.fromkeys(names, 1 / len(names))
    total = sum(rows.values())
    shares = {name: rows[name] / total for name in names}
    if weighting.cap is None:
        return shares
    return _capped(shares, weighting.cap)


def _capped(shares: dict[str, float], cap: float) -> dict[str, float]:
    """Cut shares at the cap and spread the rest over the others, in proportion."""
    if cap * len(shares) <= 1:
        return dict.fromkeys(shares, 1 / len(shares))
    held: set[str] = set()
    while True:
        free = sum(share for name, share in shares.items() if name not in held)
        factor = (1 - cap * len(held)) / free
        over = {n for n, s in shares.items() if n not in held and s * factor > cap}
        if not over:
            return {n: cap if n in held else s * factor for n, s in shares.items()}
        held |= over
