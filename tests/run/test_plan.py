"""A plan freezes what was asked for, and refuses what cannot be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import DataError, StudyError
from tasks.run import sources
from tasks.run.folder import RunFolder
from tasks.run.limits import federation_limit, run_limit, start_limit
from tasks.run.plan import Request, check_executor, hospital_source, make_plan, read_plan
from tasks.run.run_id import run_of
from tasks.settings import Settings
from tasks.study import read_study


@pytest.fixture
def settings(tmp_path: Path, checkout: Path) -> Settings:
    return Settings.from_environment(
        {"FEDRISK_HOME": str(tmp_path), "FEDRISK_STUDIES": str(checkout / "dags" / "studies")}
    )


@pytest.fixture
def pods(settings: Settings) -> Settings:
    return settings.model_copy(update={"launcher": "kubernetes"})


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


@pytest.mark.parametrize("kind", ["scheduled", "manual", "backfill", "asset_triggered"])
def test_two_studies_of_one_schedule_have_folders_of_their_own(kind: str) -> None:
    airflows = f"{kind}__2026-11-24T03:00:00+00:00"
    assert run_of(airflows, "stroke") == f"stroke-{kind}__2026-11-24T03-00-00-00-00"
    assert run_of(airflows, "stroke") != run_of(airflows, "heart")
    # The name by which `fedrisk runs` lists it is a run's id as well, and of the same folder.
    assert run_of(run_of(airflows, "stroke"), "stroke") == run_of(airflows, "stroke")


@pytest.mark.parametrize("run", ["20261124T121500-stroke-1", "tuesday", "manual", "my__run"])
def test_what_a_user_has_named_keeps_its_name(run: str) -> None:
    assert run_of(run, "stroke") == run


def test_a_run_becomes_a_name_that_a_path_may_have() -> None:
    assert run_of("a..b/../c", "stroke") == "a.b-.-c"


def test_a_run_of_one_study_is_none_of_another(settings: Settings) -> None:
    make_plan(Request(study="stroke"), "r1", settings)
    with pytest.raises(StudyError, match=r"run r1 is there and is of study stroke, not of heart"):
        make_plan(Request(study="heart"), "r1", settings)
    file = str(settings.studies / "heart.yaml")
    with pytest.raises(StudyError, match="not of heart"):
        make_plan(Request(study=file), "r1", settings)


def test_a_plan_outlives_its_studys_file(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text((settings.studies / "stroke.yaml").read_text(encoding="utf-8"))
    first = make_plan(Request(study=str(file)), "r1", settings)
    file.unlink()
    assert make_plan(Request(study=str(file)), "r1", settings) == first


def test_flowers_open_superlink_is_for_one_machine_only(settings: Settings, pods: Settings) -> None:
    request = Request(study="stroke", overrides=["federation.executor=stock"])
    with pytest.raises(StudyError, match="register keys and start runs"):
        make_plan(request, "r1", pods)
    standing = pods.model_copy(update={"federation": "standing"})
    assert make_plan(request, "r2", standing)
    check_executor(make_plan(Request(study="stroke"), "r3", pods).study)
    assert make_plan(request, "r4", settings)


def test_a_run_of_pods_has_time_for_every_pod_to_start(settings: Settings, pods: Settings) -> None:
    study = read_study(settings.studies / "stroke.yaml", ["compute.place_within=1000"])
    assert run_limit(study, pods) - run_limit(study, settings) == 8 * (
        1000 + study.compute.start_within
    )


LATE = [
    (["federation.deadlines.run=14400"], "14580 s"),
    (["federation.deadlines={run: 14400}"], "14580 s"),
    (["federation.deadlines.ready=900", "federation.deadlines.run = 4000"], "4960 s"),
]


@pytest.mark.parametrize("launcher", ["process", "compose", "kubernetes"])
@pytest.mark.parametrize(("overrides", "need"), LATE)
def test_deadlines_that_outlast_the_dag_are_refused_before_anything_starts(
    settings: Settings, overrides: list[str], need: str, launcher: str
) -> None:
    settings = settings.model_copy(update={"launcher": launcher})
    with pytest.raises(StudyError) as refused:
        make_plan(Request(study="stroke", overrides=["seed=2", *overrides]), "r1", settings)
    words = str(refused.value)
    assert words.startswith(f"--set {', '.join(overrides)}: "), words
    for said in (need, "4380 s", "stroke.yaml", "Put them into the file"):
        assert said in words
    assert not RunFolder(settings.runs, "r1").path.exists()


def test_a_pod_gets_no_more_time_to_start_than_the_dag_gives_it(
    settings: Settings, pods: Settings
) -> None:
    request = Request(study="stroke", overrides=["compute.place_within=3600"])
    with pytest.raises(StudyError, match=r"--set compute\.place_within=3600: .*4200 s.*1200 s"):
        make_plan(request, "r1", pods)
    # Nothing but a pod has to be placed.
    assert make_plan(request, "r1", settings)


@pytest.mark.parametrize(
    "overrides",
    [
        # Pods that start slowly are waited for by every launcher's run, to be compared.
        ["federation.rounds=20", "federation.deadlines.ready=400"],
        ["federation.deadlines.ready=900", "federation.deadlines.run=3000"],
        ["federation.deadlines.run=60", "federation.deadlines.round=15"],
        ["compute.place_within=1000", "compute.start_within=200"],
        ["compute.place_within=8"],
    ],
)
def test_deadlines_that_the_dag_leaves_room_for_are_a_runs_to_choose(
    settings: Settings, pods: Settings, overrides: list[str]
) -> None:
    for run, given in (("r1", settings), ("r2", pods)):
        plan = make_plan(Request(study="stroke", overrides=overrides), run, given)
        written = read_study(settings.studies / "stroke.yaml")
        waits = plan.study.federation.deadlines
        assert waits.ready + waits.run < federation_limit(written, given)
        assert start_limit(plan.study) <= start_limit(written)


def test_deadlines_in_the_studys_file_lengthen_its_dag(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    text = (settings.studies / "stroke.yaml").read_text(encoding="utf-8")
    assert "  min_hospitals:" in text
    more = "  deadlines: {run: 14400}\n  min_hospitals:"
    file.write_text(text.replace("  min_hospitals:", more, 1), encoding="utf-8")
    request = Request(study=str(file), overrides=["federation.deadlines.run=14500"])
    assert make_plan(request, "r1", settings).study.federation.deadlines.run == 14500
    # Whoever lets every step work longer has longer deadlines, too.
    patient = settings.model_copy(update={"step_deadline": 20000})
    request = Request(study="stroke", overrides=["federation.deadlines.run=14400"])
    assert make_plan(request, "r2", patient)


def test_a_file_that_only_its_overrides_make_sound_has_no_dag_to_outlast(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "unsound.yaml"
    text = (settings.studies / "stroke.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("seed: 1\n", "seed: none\n"), encoding="utf-8")
    overrides = ["seed=1", "federation.deadlines.run=14400"]
    assert make_plan(Request(study=str(file), overrides=overrides), "r1", settings)


SITES = ["cleveland", "hungarian", "switzerland", "va"]


def test_a_table_of_this_machine_is_refused_where_steps_are_pods(
    settings: Settings, pods: Settings, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.touch()
    for source in (str(table), f"file://{table}", f"{sources.SHIPPED}/../../../{table}"):
        request = Request(study="stroke", source=source)
        with pytest.raises(StudyError, match=r"table\.csv: the source would .*s3a:// or https://"):
            make_plan(request, "r1", pods)
    assert make_plan(Request(study="stroke", source=str(table)), "r1", settings)
    request = Request(study="stroke", overrides=[f"source.path={table}"])
    with pytest.raises(StudyError, match="would be read in a pod"):
        make_plan(request, "r2", pods)


@pytest.mark.parametrize("source", ["s3a://data/t.csv", "s3://data/t.csv", "https://a.example/t"])
def test_pods_read_a_table_that_has_an_address(pods: Settings, source: str) -> None:
    assert make_plan(Request(study="stroke", source=source), "r1", pods).source == source


def test_hospitals_tables_beside_a_study_of_this_machine_are_refused_where_steps_are_pods(
    pods: Settings,
) -> None:
    overrides = [f"hospitals.{name}.path=s3a://{name}/table.data" for name in SITES]
    with pytest.raises(StudyError, match=r"studies: the tables of va would .*s3a://"):
        make_plan(Request(study="heart", overrides=overrides[:3]), "r1", pods)
    plan = make_plan(Request(study="heart", overrides=overrides), "r1", pods)
    assert hospital_source(plan, "va") == "s3a://va/table.data"
    plan = make_plan(Request(study="heart", source="s3a://heart"), "r2", pods)
    assert hospital_source(plan, "va") == "s3a://heart/heart/processed.va.data"


def test_studies_that_the_images_ship_are_read_where_steps_are_pods(
    pods: Settings, tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Airflow outside the images cannot look, and its pods will.
    shipped = f"{sources.SHIPPED}/dags/studies"
    plan = make_plan(Request(study="heart", source=shipped), "r1", pods)
    assert plan.source == shipped
    # Airflow in its own image finds its studies, with their tables, where pods find them.
    monkeypatch.setattr(sources, "SHIPPED", checkout)
    plan = make_plan(Request(study="heart"), "r2", pods)
    assert Path(hospital_source(plan, "va")).is_file()
    with pytest.raises(DataError, match="no such file"):
        make_plan(Request(study="stroke", source=str(checkout / "nowhere.csv")), "r3", pods)
