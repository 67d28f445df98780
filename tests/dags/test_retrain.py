"""The DAGs: one a study, with what a production DAG needs, and light to read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.local_airflow.home import AirflowHome
from tasks.run.limits import run_limit
from tasks.run.steps import STEPS
from tasks.settings import Settings
from tasks.study import read_study

pytestmark = pytest.mark.slow

QUESTION = {
    "forms": [
        {},
        {"rounds": 0},
        {"rounds": "three"},
        {"strategy": "fedsgd"},
        {"hospitals": ["hospital-9", "hospital-1"]},
        {"hospitals": ["hospital-1"]},
        {"overrides": ["no equals sign"]},
        {"seed": -1},
        {"promote": "perhaps"},
        {"source": "/data/table.csv", "rounds": 3, "overrides": ["model.dropout=0.1"]},
    ],
    "options": [
        {},
        {"rounds": 3, "promote": False, "source": "s3a://lake/t.csv"},
        {"hospitals": ["hospital-1", "hospital-3"], "overrides": [" model.dropout=0.1"]},
    ],
    "codes": [0, 1, 2, 3, 4],
}


def read(
    home: Path, checkout: Path, question: object, studies: Path | None = None, **given: Any
) -> Any:
    """Read the DAG folder in a fresh process."""
    settings = Settings(home=home, studies=studies or checkout / "dags" / "studies")
    airflow = AirflowHome(settings.model_copy(update=given))
    airflow.configure(8080, schedules=False)
    script = Path(__file__).parent / "read_dags.py"
    done = subprocess.run(
        [sys.executable, str(script), str(checkout / "dags"), json.dumps(question)],
        env=airflow.environment(), cwd=checkout, capture_output=True, text=True, timeout=400,
        check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert lines, done.stderr[-3000:]
    return json.loads(lines[-1].removeprefix("ANSWER"))


@pytest.fixture(scope="session")
def answer(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Any:
    return read(tmp_path_factory.mktemp("airflow-home"), checkout, QUESTION)


def test_every_study_is_a_dag_and_none_has_an_error(answer: Any, checkout: Path) -> None:
    studies = {path.stem for path in (checkout / "dags" / "studies").glob("*.yaml")}
    assert answer["errors"] == {}
    assert set(answer["dags"]) == {f"retrain_{name}" for name in studies}


def test_reading_the_dags_loads_nothing_heavy(answer: Any) -> None:
    assert answer["heavy"] == []


def test_every_step_is_a_task(answer: Any) -> None:
    for dag in answer["dags"].values():
        assert set(dag["tasks"]) == {"plan", *STEPS}
        for name, step in STEPS.items():
            assert dag["tasks"][name]["mapped"] == step.each_hospital, name


def test_every_task_can_end_fail_and_be_understood(answer: Any) -> None:
    for dag in answer["dags"].values():
        for name, task in dag["tasks"].items():
            assert 0 < task["timeout"] <= 3 * 3600, name
            assert task["retries"] == 2, name
            assert task["backoff"] == 2.0, name
            assert task["doc"], name
            spark = name in ("collect", "validate", "features")
            assert task["pool"] == ("spark" if spark else "default_pool"), name
            if task["mapped"]:
                assert "hospital" in task["index"], name


def test_the_graph_is_that_of_the_steps(answer: Any) -> None:
    down = {k: set(v["down"]) for k, v in answer["dags"]["retrain_stroke"]["tasks"].items()}
    assert {"champion", "deal"} <= down["plan"]
    assert down["deal"] == {"collect"}
    assert down["collect"] == {"validate"}
    assert down["validate"] == {"features"}
    assert down["features"] == {"reference", "central", "local", "federated", "join"}
    for model in ("champion", "reference", "central", "local", "federated", "join"):
        assert down[model] == {"score"}
    assert down["score"] == {"evaluate"}
    assert down["evaluate"] == {"promote"}
    assert down["promote"] == set()


def test_score_runs_without_a_centralized_model(answer: Any) -> None:
    assert answer["dags"]["retrain_stroke"]["tasks"]["score"]["rule"] == "none_failed"


def test_a_dag_says_whose_it_is_and_what_it_does(answer: Any) -> None:
    dag = answer["dags"]["retrain_heart"]
    assert dag["owner"] == "heart-consortium"
    assert {"fedrisk", "retrain", "heart", "scaffold"} <= set(dag["tags"])
    for text in ("Cleveland Clinic Foundation", "Serum cholesterol", "min ratio to central"):
        assert text in dag["doc"]
    assert (dag["catchup"], dag["max_active_runs"]) == (False, 1)
    assert dag["schedule"] == "0 4 1 * *"
    assert dag["timeout"] > 0


def test_a_dag_that_is_switched_on_waits_for_its_next_time(answer: Any) -> None:
    found = {name: dag["next"] for name, dag in answer["dags"].items()}
    assert found == {
        "retrain_stroke": "2026-11-08T03:00:00+00:00",
        "retrain_heart": "2026-12-01T04:00:00+00:00",
    }


def test_the_trigger_form_is_typed(answer: Any) -> None:
    params = answer["dags"]["retrain_heart"]["params"]
    assert set(params) == {
        "source", "hospitals", "strategy", "rounds", "seed", "promote", "overrides",
    }  # fmt: skip
    assert all(schema["title"] and schema["description"] for schema in params.values())
    assert params["hospitals"]["items"]["enum"] == ["cleveland", "hungarian", "switzerland", "va"]
    assert "fedprox" in params["strategy"]["enum"]
    assert params["rounds"]["minimum"] == 1


def test_the_trigger_form_refuses_what_is_not_sound(answer: Any) -> None:
    assert answer["refused"] == [False, *[True] * 8, False]


def test_the_form_becomes_the_plans_options_where_it_differs_from_the_study(answer: Any) -> None:
    assert answer["options"] == [
        [],
        ["--source", "s3a://lake/t.csv", "--rounds", "3", "--no-promote"],
        ["--hospitals", "hospital-1,hospital-3", "--set", "model.dropout=0.1"],
    ]


def test_exit_codes_decide_on_retries(answer: Any) -> None:
    kinds = [text.split(":")[0] for text in answer["codes"]["hard"]]
    assert kinds == [
        "none", "AirflowException", "AirflowFailException", "AirflowFailException",
        "AirflowException",
    ]  # fmt: skip
    assert "why" in answer["codes"]["hard"][2]


def test_a_step_that_the_run_can_do_without_is_skipped_at_its_last_failure(answer: Any) -> None:
    kinds = [text.split(":")[0] for text in answer["codes"]["soft"]]
    assert kinds == ["none", "AirflowException", *["AirflowSkipException"] * 2, "AirflowException"]
    last = [text.split(":")[0] for text in answer["codes"]["last"]]
    assert last == ["none", *["AirflowSkipException"] * 4]


def test_a_broken_study_is_named_and_the_others_stay(tmp_path: Path, checkout: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    text = (checkout / "dags" / "studies" / "stroke.yaml").read_text(encoding="utf-8")
    (studies / "good.yaml").write_text(text, encoding="utf-8")
    (studies / "broken.yaml").write_text(text.replace("seed: 1", "sede: 1"), encoding="utf-8")
    found = read(tmp_path / "home", checkout, {}, studies)
    assert set(found["dags"]) == {"retrain_stroke"}
    assert set(found["errors"]) == {"study_errors.py"}
    assert "broken.yaml" in found["errors"]["study_errors.py"]
    assert "sede" in found["errors"]["study_errors.py"]


def test_the_same_graph_is_made_of_pods(tmp_path: Path, checkout: Path, answer: Any) -> None:
    pods = read(
        tmp_path, checkout, {}, launcher="kubernetes", store="s3://fedrisk-runs", compute="small"
    )
    assert pods["errors"] == {}
    assert pods["heavy"] == []
    assert set(pods["dags"]) == {*answer["dags"], "fedrisk_sweep"}
    for name, dag in answer["dags"].items():
        for task, said in dag["tasks"].items():
            pod = pods["dags"][name]["tasks"][task]
            assert pod["kind"] == ("FedriskStep" if task == "plan" else "PodStep")
            assert said["kind"] == "FedriskStep"
            for same in ("down", "retries", "rule", "mapped", "index", "doc"):
                assert pod[same] == said[same], (task, same)
            # A pod waits for room and for its image first.
            assert task == "plan" or pod["timeout"] > said["timeout"]
        study = read_study(checkout / "dags" / "studies" / f"{name.removeprefix('retrain_')}.yaml")
        # What `fedrisk run` waits for is this and more.
        for made, launcher in ((dag, "process"), (pods["dags"][name], "kubernetes")):
            assert made["timeout"] == run_limit(study, Settings(launcher=launcher))
    assert pods["dags"]["fedrisk_sweep"]["schedule"] == "*/5 * * * *"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"launcher": "kubernetes"}, "FEDRISK_STORE"),
        ({"launcher": "compose", "store": "s3://runs"}, "FEDRISK_FEDERATION=standing"),
    ],
)
def test_a_launcher_without_its_settings_is_refused_by_name(
    tmp_path: Path, checkout: Path, settings: Any, words: str
) -> None:
    found = read(tmp_path, checkout, {}, **settings)
    assert words in found["errors"]["retrain.py"]
