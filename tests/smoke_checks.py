"""What the tests of both smokes share: their images, and the ids of checks that must have held."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable, Iterator, Mapping

import pytest

from smoke.table import Table

Holds = Mapping[str, str]
"""Ids of checks by stage, with blanks between them."""


@contextlib.contextmanager
def shown(config: pytest.Config) -> Iterator[None]:
    """Let each check be seen as it is made, and the stages' times, also where all of them hold."""
    capture = config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        yield


def need_images(names: Iterable[str]) -> None:
    """Fail where an image that `make images` makes is not there."""
    for name in names:
        image = f"fedrisk-{name}:dev"
        asked = ["docker", "image", "inspect", image]
        if subprocess.run(asked, capture_output=True, timeout=400, check=False).returncode:
            pytest.fail(f"there is no image {image}: run `make images` first")


def each_check(holds: Holds) -> pytest.MarkDecorator:
    """Parametrize a test by stage and id: a check that was left out is none that held."""
    cases = [(stage, name) for stage, names in holds.items() for name in names.split()]
    return pytest.mark.parametrize(("stage", "name"), cases, ids=map("-".join, cases))


def assert_held(table: Table, stage: str, name: str) -> None:
    """See that a check was made, and held each time."""
    made = [each for each in table.checks if (each.stage, each.id) == (stage, name)]
    missed = [f"{each.id}: {each.seen}" for each in table.checks if not each.held]
    assert made, f"not looked at; what did not hold: {missed}"
    assert all(each.held for each in made), [each.seen for each in made]


def assert_nothing_else(table: Table, holds: Holds) -> None:
    """See that all checks held, and that each is named by the tests."""
    missed = [f"{each.stage}: {each.id}: {each.seen}" for each in table.checks if not each.held]
    assert missed == []
    named = {(stage, name) for stage, names in holds.items() for name in names.split()}
    assert {(each.stage, each.id) for each in table.checks} <= named
