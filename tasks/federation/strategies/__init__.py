"""Strategies: how the hospitals' updates become the next model. One file a strategy."""

from tasks.federation.strategies.choice import make_strategy
from tasks.federation.strategies.strategy import Aggregate, Strategy

__all__ = ["Aggregate", "Strategy", "make_strategy"]
