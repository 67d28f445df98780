"""One release on the real cluster: installed, a run in pods, isolation, and gone again."""

from __future__ import annotations

import pytest
from smoke_checks import assert_held, assert_nothing_else, each_check

from smoke.table import Table

# The first of them goes through all stages.
pytestmark = [
    *(pytest.mark.stack, pytest.mark.slow, pytest.mark.end_to_end, pytest.mark.shared),
    pytest.mark.timeout(3600),
]

HOLDS = {
    "install": "installed helm-test metrics",
    "run": "champion registered same-figures",
    "isolation": "own-account training-node asks own-bucket own-prefix list-other read-other"
    " write-other write-prefix write-consortium no-other-secret ports control-closed own-token"
    " rights taint stranger",
    "uninstall": "nothing-left",
}


@each_check(HOLDS)
def test_it_holds_on_the_cluster(table: Table, stage: str, name: str) -> None:
    assert_held(table, stage, name)


def test_nothing_else_was_looked_at(table: Table) -> None:
    assert_nothing_else(table, HOLDS)
