"""The report says what happened, stands alone, and shows no patient."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from small_run import make_run

from tasks.evaluate.evaluation import compare, read_scores
from tasks.evaluate.report import svg as pictures
from tasks.evaluate.report.curves import write_curves
from tasks.evaluate.report.report import render

SECTIONS = (
    *("gates", "models", "curves", "hospitals", "decisions", "rounds", "features", "data"),
    *("limits", "record"),
)
VOID = {"meta", "br", "link", "img", "hr"}


@pytest.fixture(scope="module")
def report(small_run, comparison):
    write_curves(small_run.context, read_scores(small_run.context))
    return render(small_run.context, comparison, None)


class Balance(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.faults = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))


def test_every_section_and_every_chart_is_there(report):
    for section in SECTIONS:
        assert f'<section id="{section}">' in report
    assert report.count("<svg") >= 11


def test_it_is_sound_html(report):
    checker = Balance()
    checker.feed(report)
    assert checker.faults == []
    assert checker.open == []


def test_it_needs_no_network_and_no_script(report):
    assert "<script" not in report
    assert not re.search(r'(?:src|href)="(?!#)', report)
    assert not re.search(r"url\(|@import", report)


def test_figures_stand_in_it_as_they_are_in_the_comparison(report, comparison):
    for summary in comparison.summaries().values():
        assert f"{summary.auroc:.3f}" in report
    assert f"{comparison.ratio.value:.1%}" in report
    assert "hospital-2 lost (no reply within 120 s)" in report
    assert "avg_glucose_level: out of range: 7" in report


def test_a_missing_value_that_tells_of_the_outcome_is_pointed_out(report):
    # 12 of 60 against 120 of 3000.
    expected = (
        "Body mass index is missing in 60 training rows, of whom 20.0% have stroke, against 4.0%"
    )
    assert expected in report


def test_no_value_of_a_row_stands_in_it(report, small_run):
    for x, _ in small_run.rows.values():
        for value in x[:, 0][:50]:
            assert f"{value:.6f}" not in report


def test_gates_are_shown_with_their_verdict(small_run, comparison):
    gate = {
        "name": "calibration_error", "passed": False, "applicable": True, "value": 0.5,
        "limit": 0.02, "detail": "It is 0.48 too high.",
    }  # fmt: skip
    text = render(small_run.context, comparison, [gate])
    assert "✗ failed" in text
    assert "It is not promoted: 1 of 1 gates failed. It is 0.48 too high." in text


def test_what_the_study_says_cannot_become_markup(tmp_path):
    small = make_run(tmp_path, "evil", overrides=("title=<b>x</b>",))
    found = compare(small.context, read_scores(small.context))
    write_curves(small.context, read_scores(small.context))
    assert "<b>x</b>" not in render(small.context, found, None)


def test_a_run_without_pooling_has_a_report_too(tmp_path):
    small = make_run(tmp_path, "no-pooling", pooling=False)
    found = compare(small.context, read_scores(small.context))
    write_curves(small.context, read_scores(small.context))
    assert "no centralized model" in render(small.context, found, None)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.812, 0.847), (0, 153_000), (-0.002, 0.13)])
def test_ticks_are_few_round_and_inside(low, high):
    found = pictures.ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 <= tick <= high + (high - low) * 0.01 for tick in found)
