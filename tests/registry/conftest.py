"""One MLflow store for all tests of the registry, and the small run of the evaluation's tests."""

from __future__ import annotations

import pytest

from tasks.telemetry.tracking import client, prepare


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A home whose database is made once."""
    from small_run import settings_at

    path = tmp_path_factory.mktemp("registry")
    prepare(settings_at(path))
    return path


@pytest.fixture
def connected(home):
    """A client of that home, with no registered model."""
    from small_run import settings_at

    found = client(settings_at(home))
    for model in found.search_registered_models():
        found.delete_registered_model(model.name)
    return found
