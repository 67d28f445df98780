"""From the study's words to a strategy."""

from __future__ import annotations

from tasks.federation.strategies.fedavg import FedAvg
from tasks.federation.strategies.fednova import FedNova
from tasks.federation.strategies.fedopt import FedAdagrad, FedAdam, FedAvgM, FedYogi
from tasks.federation.strategies.fedprox import FedProx
from tasks.federation.strategies.robust import FedMedian, FedTrimmedAvg, Krum
from tasks.federation.strategies.scaffold import Scaffold
from tasks.federation.strategies.strategy import Strategy
from tasks.study import Federation


def make_strategy(federation: Federation) -> Strategy:
    """Make the study's strategy, both halves of it.

    Args:
        federation: The study's federation.
    """
    options = federation.options
    match federation.strategy:
        case "scaffold":
            return Scaffold(options.server_learning_rate or 1.0)
        case "fedavg":
            return FedAvg()
        case "fedprox":
            return FedProx(0.01 if options.proximal_mu is None else options.proximal_mu)
        case "fednova":
            return FedNova(federation.momentum)
        case "fedavgm":
            return FedAvgM(options)
        case "fedadam":
            return FedAdam(options)
        case "fedyogi":
            return FedYogi(options)
        case "fedadagrad":
            return FedAdagrad(options)
        case "fedmedian":
            return FedMedian()
        case "fedtrimmedavg":
            return FedTrimmedAvg(0.2 if options.trim is None else options.trim)
        case "krum":
            return Krum(options.malicious or 0)
