"""Fixtures of the chart's tests."""

from __future__ import annotations

from helm_chart import chart, render
from kubernetes_cluster import cluster

__all__ = ["chart", "cluster", "render"]
