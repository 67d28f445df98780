"""The model card has CHAI's parts and the run's figures."""

from __future__ import annotations

import pytest

from tasks.evaluate.report.model_card import write_card

PARTS = (
    *("## Name and release", "## Summary", "## Uses and directions", "## Warnings"),
    *("## Trust ingredients", "### Training data", "### Bias mitigation"),
    *("### Ongoing maintenance", "### Security and privacy", "## Key metrics", "### Usefulness"),
    *("### Fairness and equity", "### Safety and reliability", "## Resources"),
)


@pytest.fixture(scope="module")
def card(small_run, comparison):
    return write_card(small_run.context, comparison).read_text(encoding="utf-8")


@pytest.mark.parametrize("part", PARTS)
def test_it_has_every_part(card, part):
    assert part in card


def test_it_holds_the_figures_of_each_hospital(card, comparison):
    for name, own in comparison.federated.per_hospital.items():
        assert f"| {name} | {own.auroc:.3f}" in card
    for hospital in comparison.hospitals:
        assert f"| {hospital.title} | {hospital.rows} | {hospital.positives} |" in card


def test_every_table_has_one_width(card):
    width = None
    for line in card.splitlines():
        if not line.startswith("|"):
            width = None
            continue
        width = width or line.rstrip().count("|")
        assert line.rstrip().count("|") == width, line
