"""One MLflow store for the tests of telemetry, and the small run of the evaluation's tests."""

from __future__ import annotations

import pytest

from tasks.telemetry.tracking import prepare


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A home whose database is made once."""
    from small_run import settings_at

    path = tmp_path_factory.mktemp("telemetry")
    prepare(settings_at(path))
    return path
