"""Faults, upgrades and the standing federation on the real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from smoke_checks import assert_held, assert_nothing_else, each_check

from smoke.cluster.former_chart import NoFormerChart, former_chart
from smoke.table import Table

# The first of them goes through all stages.
pytestmark = [
    *(pytest.mark.platform, pytest.mark.slow, pytest.mark.end_to_end, pytest.mark.shared),
    pytest.mark.timeout(4800),
]

HOLDS = {
    "install": "installed helm-test metrics",
    "faults": "cancelled memory no-room no-pod-left killed no-image no-command-pod-left"
    " lost-hospital lost-server upgraded lost-scheduler",
    "standing": "supernodes-4 store-opens trained took-part same-figures spark model mended"
    " superlink-back supernodes-10",
    "uninstall": "nothing-left",
}


@each_check(HOLDS)
def test_it_holds_on_the_cluster(platform_table: Table, stage: str, name: str) -> None:
    assert_held(platform_table, stage, name)


def test_nothing_else_was_looked_at(platform_table: Table) -> None:
    assert_nothing_else(platform_table, HOLDS)


def test_the_release_is_upgraded_from_the_chart_before_it(
    platform_table: Table, tmp_path: Path
) -> None:
    """All is looked at, but where no chart of this minor version is in the history."""
    why = []
    try:
        former_chart(tmp_path)
    except NoFormerChart as reason:
        why = [str(reason)]
    assert [each.why for each in platform_table.skipped] == why
