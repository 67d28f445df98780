"""Strategies: how the hospitals' updates become the next model. A file a family."""

from tasks.federation.strategies.choice import make_strategy
from tasks.federation.strategies.strategy import LocalTraining, Strategy

__all__ = ["LocalTraining", "Strategy", "make_strategy"]
