"""One small run for all tests of the evaluation."""

from __future__ import annotations

from typing import Any

import pytest
from small_run import SmallRun, make_run

from tasks.evaluate.evaluation import compare, read_scores
from tasks.evaluate.results import Comparison


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: Any) -> SmallRun:
    return make_run(tmp_path_factory.mktemp("evaluate"), "small")


@pytest.fixture(scope="session")
def comparison(small_run: SmallRun) -> Comparison:
    return compare(small_run.context, read_scores(small_run.context))
