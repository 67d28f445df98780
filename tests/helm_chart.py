"""The chart, rendered by the real Helm."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes_cluster import helm, helm_program
from ruamel.yaml import YAML

CHART = Path(__file__).parent.parent / "helm" / "fedrisk"
NAMESPACE = "rendered"
Objects = dict[tuple[str, str], dict[str, Any]]
Render = Callable[..., Objects]
API = ("--kube-version", "1.33.0")


def values_of(name: str) -> list[str]:
    """Helm's options for the chart's ``values-<name>.yaml``, or for a file of the tests.

    Without a name the defaults, with what they cannot do without (``store.yaml``).
    """
    ours = Path(__file__).parent / "helm" / f"{name or 'store'}.yaml"
    return ["-f", str(ours if ours.exists() else CHART / f"values-{name}.yaml")]


def objects_of(text: str) -> Objects:
    """Rendered objects by kind and name; two of one name are refused."""
    found: Objects = {}
    for item in YAML(typ="safe", pure=True).load_all(text):
        if item:
            key = (item["kind"], item["metadata"]["name"])
            assert key not in found, f"rendered twice: {key}"
            found[key] = item
    return found


@functools.cache
def _rendered(arguments: tuple[str, ...]) -> str:
    return helm("template", "fedrisk", str(CHART), "-n", NAMESPACE, *API, *arguments)


@pytest.fixture(scope="session")
def chart() -> Path:
    """The chart's folder; the tests of it need Helm, and no cluster."""
    helm_program()
    return CHART


@pytest.fixture
def render(chart: Path, tmp_path: Path) -> Render:
    """Render the chart: ``render("kind", values={...})``, or with further options of Helm's."""

    def rendered(
        name: str = "", values: dict[str, Any] | None = None, options: tuple[str, ...] = ()
    ) -> Objects:
        arguments = values_of(name)
        if values is None:
            return objects_of(_rendered((*arguments, *options)))
        path = tmp_path / "values.yaml"
        # JSON is YAML too, and quotes what Helm would take for something else (`no`).
        path.write_text(json.dumps(values))
        text = helm(
            *("template", "fedrisk", str(chart), "-n", NAMESPACE, *API),
            *(*arguments, "-f", str(path), *options),
        )
        return objects_of(text)

    return rendered
