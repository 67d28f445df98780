"""Strategies that a few hospitals with any update cannot lead astray; they need single updates.

Median and trimmed mean of each parameter are of Yin et al. 2018 (arXiv:1803.01498), Krum is of
Blanchard et al. 2017 (arXiv:1703.02757).
"""

from __future__ import annotations

import numpy as np

from tasks.federation.strategies.strategy import Strategy, moved, updates
from tasks.federation.update.stage import About, Total
from tasks.federation.wire import Doubles, Floats


class _Robust(Strategy):
    needs_each = True

    def middle(self, each: Doubles) -> Doubles:
        """The step that the updates agree on, shape (p,).

        Args:
            each: The updates, shape (hospitals, p).
        """
        raise NotImplementedError

    def step(self, model: Floats, total: Total, about: About) -> Floats:
        """See ``Strategy.step``."""
        del about
        return moved(model, self.middle(np.stack(list(updates(total).values()))))

    def weights(self, total: Total) -> dict[str, float]:
        """All alike: rows do not count."""
        return dict.fromkeys(total.hospitals, 1 / len(total.hospitals))


class FedMedian(_Robust):
    """The median of each parameter."""

    def middle(self, each: Doubles) -> Doubles:
        """See ``_Robust.middle``."""
        return np.asarray(np.median(each, axis=0))


class FedTrimmedAvg(_Robust):
    """The mean of each parameter without a share of the lowest and highest."""

    def __init__(self, trim: float = 0.2) -> None:
        """Choose the share.

        Args:
            trim: Cut from each end, in [0, .5).
        """
        self.trim = trim

    def middle(self, each: Doubles) -> Doubles:
        """See ``_Robust.middle``."""
        cut = int(self.trim * len(each))
        return np.asarray(np.sort(each, axis=0)[cut : len(each) - cut].mean(axis=0))


class Krum(_Robust):
    """The one update that is nearest to its neighbours."""

    def __init__(self, malicious: int = 0) -> None:
        """Say against how many.

        Args:
            malicious: Hospitals that may send anything, f.
        """
        self.malicious = malicious

    def chosen(self, each: Doubles) -> int:
        """Place of the update with the lowest sum of squared distances to its n - f - 2 nearest.

        Args:
            each: The updates, shape (hospitals, p).
        """
        distances = ((each[:, None] - each[None]) ** 2).sum(axis=2)
        nearest = max(1, len(each) - self.malicious - 2)
        return int(np.argmin(np.sort(distances, axis=1)[:, 1 : nearest + 1].sum(axis=1)))

    def middle(self, each: Doubles) -> Doubles:
        """See ``_Robust.middle``."""
        return np.asarray(each[self.chosen(each)])

    def weights(self, total: Total) -> dict[str, float]:
        """All of the chosen one."""
        chosen = self.chosen(np.stack(list(updates(total).values())))
        return {name: float(place == chosen) for place, name in enumerate(total.hospitals)}
