"""FedProx: FedAvg with mu/2 ||w - w_round||^2 in the hospitals' loss (Li et al. 2020).

arXiv:1812.06127. The term's gradient, mu (w - w_round), is added in ``tasks.model.training``.
"""

from __future__ import annotations

from tasks.federation.strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """FedAvg whose hospitals are held near the round's model."""

    def __init__(self, proximal_mu: float = 0.01) -> None:
        """Choose the weight.

        Args:
            proximal_mu: mu; 0 gives FedAvg.
        """
        self.proximal_mu = proximal_mu
