"""FedAvg: the weighted mean of the hospitals' models (McMahan et al. 2017, arXiv:1602.05629)."""

from __future__ import annotations

from tasks.federation.strategies.strategy import Strategy


class FedAvg(Strategy):
    """The weighted mean of the updates is the step."""
