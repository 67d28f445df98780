"""A plan freezes what was asked for, and refuses what cannot be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import DataError, StudyError
from tasks.manifest import RunFolder
from tasks.plan import Request, hospital_source, make_plan, read_plan
from tasks.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, checkout: Path) -> Settings:
    return Settings.from_environment(
        {"FEDRISK_HOME": str(tmp_path), "FEDRISK_STUDIES": str(checkout / "dags" / "studies")}
    )


def test_choices_become_overrides_and_an_explicit_override_wins(settings: Settings) -> None:
    request = Request(study="stroke", rounds=3, seed=9, overrides=["federation.rounds=4"])
    plan = make_plan(request, "r1", settings)
    assert plan.study.federation.rounds == 4
    assert plan.study.seed == 9


def test_a_run_keeps_its_first_plan(settings: Settings) -> None:
    first = make_plan(Request(study="stroke", rounds=3), "r1", settings)
    again = make_plan(Request(study="stroke", rounds=5), "r1", settings)
    assert again == first
    assert read_plan(RunFolder(settings.runs, "r1")) == first


def test_without_a_source_the_stroke_study_is_synthetic(settings: Settings) -> None:
    plan = make_plan(Request(study="stroke"), "r1", settings)
    assert plan.synthetic
    assert plan.source_name == "synthetic:stroke"


def test_a_source_that_is_not_there_is_refused_before_anything_starts(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        make_plan(Request(study="stroke", source="nowhere.csv"), "r1", settings)
    assert not RunFolder(settings.runs, "r1").path.exists()


def test_hospitals_own_tables_are_found_beside_the_study(settings: Settings) -> None:
    plan = make_plan(Request(study="heart"), "r1", settings)
    for hospital in plan.hospitals:
        assert Path(hospital_source(plan, hospital)).is_file()


def test_hospitals_own_tables_are_found_below_a_given_folder(
    settings: Settings, tmp_path: Path
) -> None:
    plan = make_plan(Request(study="heart", source=str(tmp_path)), "r1", settings)
    name = hospital_source(plan, "va")
    assert Path(name).parent == tmp_path


def test_unknown_hospitals_are_named_with_the_known(settings: Settings) -> None:
    with pytest.raises(StudyError, match=r"unknown hospitals north; .* hospital-1, hospital-2"):
        make_plan(Request(study="stroke", hospitals=["north"]), "r1", settings)


def test_fewer_hospitals_than_a_round_needs_are_refused(settings: Settings) -> None:
    with pytest.raises(StudyError, match=r"min_hospitals is 2, but the run has only 1"):
        make_plan(Request(study="stroke", hospitals=["hospital-1"]), "r1", settings)


def test_an_unknown_study_is_named_with_the_known(settings: Settings) -> None:
    with pytest.raises(StudyError, match=r"no study named 'strok' .*heart, stroke"):
        make_plan(Request(study="strok"), "r1", settings)


def test_a_run_without_a_plan_says_how_to_make_one(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"fedrisk step plan"):
        read_plan(RunFolder(settings.runs, "none"))
