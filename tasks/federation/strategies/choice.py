"""From the study's words to a strategy."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.federation.strategies.fedavg import FedAvg
from tasks.federation.strategies.fednova import FedNova
from tasks.federation.strategies.fedprox import FedProx
from tasks.federation.strategies.flower import FlowerStrategy
from tasks.federation.strategies.scaffold import Scaffold
from tasks.federation.strategies.strategy import Strategy
from tasks.study import Federation


def make_strategy(federation: Federation, shares: Mapping[str, float]) -> Strategy:
    """Make the study's strategy.

    Args:
        federation: The study's federation.
        shares: Weight of every hospital of the federation.
    """
    options = federation.options
    if federation.strategy == "scaffold":
        return Scaffold(shares, options.server_learning_rate or 1.0)
    if federation.strategy == "fedavg":
        return FedAvg()
    if federation.strategy == "fedprox":
        return FedProx(0.01 if options.proximal_mu is None else options.proximal_mu)
    if federation.strategy == "fednova":
        return FedNova(federation.momentum)
    return FlowerStrategy(federation.strategy, options)
