"""One lake for all federations of the session, and one federation that only looks are taken at."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from small_federation import Step, make_context, watch


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One lake for all federations of the session."""
    path = tmp_path_factory.mktemp("federation") / "home"
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def finished(home: Any) -> Step:
    """A federation of three hospitals that has ended well, and what was seen while it ran."""
    step = Step(make_context(home, "finished")).start()
    watch(step)
    assert step.wait() == 0, step.output
    return step
