"""Flower's own strategies by name, aggregated by Flower's code on one flat array.

Only their aggregation is used: their loop waits without a bound and takes two messages a round.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.federation.messages import Update
from tasks.federation.strategies.strategy import Aggregate, Floats, Strategy
from tasks.study.learning import ROBUST, StrategyOptions

KEY = "flat"
ADAPTIVE = ("fedadam", "fedyogi", "fedadagrad")


@dataclass(frozen=True)
class _Reply:
    """What Flower's aggregation reads of a message; a real one exists only within a Flower run."""

    content: Any

    @staticmethod
    def has_error() -> bool:
        """Replies with errors do not come this far."""
        return False


class FlowerStrategy(Strategy):
    """One of FedAvgM, FedAdam, FedYogi, FedAdagrad, FedMedian, FedTrimmedAvg, Krum."""

    def __init__(self, name: str, options: StrategyOptions) -> None:
        """Make Flower's object.

        Args:
            name: As the study says it.
            options: Its parameters. The adaptive ones default to a step of .01 and tau of .001
                (Reddi et al. 2021, arXiv:2003.00295), FedAvgM to a momentum of .9 (Hsu et al.
                2019, arXiv:1909.06335), trimming to .2 and Krum to no malicious hospital.
        """
        from flwr.serverapp import strategy as flower

        self.name = name
        # Flower reports every reply and setting at INFO, beside our one line a round.
        logging.getLogger("flwr").setLevel(logging.WARNING)
        step = {"eta": options.server_learning_rate or 0.01, "tau": options.tau or 1e-3}
        betas = {
            "beta_1": 0.9 if options.beta_1 is None else options.beta_1,
            "beta_2": 0.99 if options.beta_2 is None else options.beta_2,
        }
        momentum = 0.9 if options.server_momentum is None else options.server_momentum
        made: dict[str, Any] = {
            "fedavgm": lambda: flower.FedAvgM(
                server_learning_rate=options.server_learning_rate or 1.0,
                server_momentum=momentum,
            ),
            "fedadam": lambda: flower.FedAdam(**step, **betas),
            "fedyogi": lambda: flower.FedYogi(**step, **betas),
            "fedadagrad": lambda: flower.FedAdagrad(**step),
            "fedmedian": lambda: flower.FedMedian(),
            "fedtrimmedavg": lambda: flower.FedTrimmedAvg(
                beta=0.2 if options.trim is None else options.trim
            ),
            "krum": lambda: flower.Krum(num_malicious_nodes=options.malicious or 0),
        }
        self._flower = made[name]()

    def aggregate(
        self,
        model: Floats,
        updates: Mapping[str, Update],
        weights: Mapping[str, float],
        *,
        number: int,
        learning_rate: float,
    ) -> Aggregate:
        """See ``Strategy.aggregate``."""
        del learning_rate
        from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

        start = model.astype(np.float64)
        if self.name == "fedavgm":
            self._flower.current_arrays = ArrayRecord({KEY: Array(start)})
        elif self.name in ADAPTIVE:
            self._flower.current_arrays = {KEY: start}
        names = sorted(updates)
        equal = self.name in ROBUST
        shares = {name: 1 / len(names) if equal else weights[name] for name in names}
        replies = [
            _Reply(
                RecordDict(
                    {
                        "arrays": ArrayRecord({KEY: Array(updates[name].model.astype(np.float64))}),
                        "metrics": MetricRecord({"num-examples": float(shares[name])}),
                    }
                )
            )
            for name in names
        ]
        arrays, _ = self._flower.aggregate_train(number, replies)
        found = np.asarray(arrays[KEY].numpy(), dtype=np.float32).reshape(model.shape)
        if self.name == "krum":
            chosen = [n for n in names if np.array_equal(updates[n].model, found)][:1]
            shares = {name: float(name in chosen) for name in names}
        return Aggregate(found, shares)

    def state(self) -> dict[str, NDArray[Any]]:
        """The server's momentum and second moment, as far as there are any."""
        found = {}
        if self.name == "fedavgm" and self._flower.momentum_vector is not None:
            found["momentum"] = np.asarray(self._flower.momentum_vector[0])
        if self.name in ADAPTIVE:
            for name in ("m_t", "v_t"):
                if held := getattr(self._flower, name):
                    found[name] = np.asarray(held[KEY])
        return found

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See ``Strategy.restore``."""
        for name, array in state.items():
            if name == "momentum":
                self._flower.momentum_vector = [array]
            else:
                setattr(self._flower, name, {KEY: array})
