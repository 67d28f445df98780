"""The whole run in pods on the real cluster, with its faults (`make cluster-smoke`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoke.cluster.former_chart import NoFormerChart, former_chart
from smoke.table import Table

pytestmark = [
    pytest.mark.stack,
    pytest.mark.slow,
    pytest.mark.end_to_end,
    pytest.mark.shared,
    # The first of them goes through all stages.
    pytest.mark.timeout(3600),
]

HOLDS = {
    "install": ["the release is installed", "helm test"],
    "run": [
        "retrain_stroke in pods goes from raw tables to a champion",
        "the champion is in the cluster's MLflow",
        "figures equal those of the launcher process, within 1e-06",
    ],
    "faults": [
        "a cancelled run's pods are gone",
        "more memory than its limit: the task fails in time with the reason in its log",
        "no room on any node: the task fails in time with the reason in its log",
        "a failed run leaves no pod",
        "a hospital's pod is deleted mid-round: the run ends well and reports it",
        "the server's pod is deleted: the run goes on after its checkpoint",
        "the release is upgraded while the run trains",
        "the scheduler is killed: the next one takes the run over",
    ],
    "commands": [
        "an image that cannot be pulled: the run fails in time with the reason",
        "the command leaves no pod",
        "the command and its Airflow are killed: its pods are ended",
    ],
    "isolation": [
        "each pod has its owner's account and secret, no token and nobody's volume",
        "training pods ran on the labelled and tainted node",
        "its own bucket is open to it",
        "its own part of the runs is open to it",
        "another hospital's bucket cannot be listed",
        "another hospital's object cannot be read",
        "nothing can be written to another hospital's bucket",
        "nothing can be written to another hospital's part of the runs",
        "nothing can be written to the consortium's part of the runs",
        "no token and no other secret is in its pod",
        "the SuperLink's control API is closed to it, its fleet API is not",
        "its service account's own token is refused another hospital's secret",
        "a pod that does not put up with the taint gets no room",
        "a pod without a registered key cannot join",
    ],
    "standing": [
        "4 hospitals by values alone: all SuperNodes are connected",
        "the store opens each hospital's bucket to it and to the pool",
        "a run in pods is trained by the standing federation",
        "its hospitals took part in all its rounds, by the release's own processes",
        "the model that it trained is in the cluster's MLflow",
        "10 hospitals by values alone: all SuperNodes are connected",
    ],
    "uninstall": ["uninstall leaves nothing"],
}
"""What each stage must have looked at: a check that was left out is none that held."""


@pytest.mark.parametrize(
    ("stage", "what"), [(stage, what) for stage, all_ in HOLDS.items() for what in all_]
)
def test_it_holds_on_the_cluster(table: Table, stage: str, what: str) -> None:
    made = [c for c in table.checks if c.stage == stage and c.what.startswith(what)]
    others = [f"{c.what}: {c.seen}" for c in table.checks if c.stage == stage and not c.held]
    assert made, f"not looked at; what did not hold: {others}"
    assert all(check.held for check in made), made[0].seen


def test_the_release_is_upgraded_from_the_chart_before_it(table: Table, tmp_path: Path) -> None:
    """All is looked at, but where no chart of this minor version is in the history."""
    unseen = [each.why for each in table.unseen]
    why = []
    try:
        former_chart(tmp_path)
    except NoFormerChart as reason:
        why = [str(reason)]
    assert unseen == why


def test_nothing_else_failed(table: Table) -> None:
    assert [f"{c.stage}: {c.what}: {c.seen}" for c in table.checks if not c.held] == []
