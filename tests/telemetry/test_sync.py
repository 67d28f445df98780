"""MLflow has the contents of the manifests once, however often they are logged."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from small_run import make_run, settings_at

from tasks.run.step import run_step
from tasks.telemetry import live
from tasks.telemetry.database import TrackingError
from tasks.telemetry.live import MlflowRounds
from tasks.telemetry.round_event import read_events
from tasks.telemetry.sync import sync
from tasks.telemetry.tracking import client, open_run


def children(connected, identifier):
    run = connected.get_run(identifier)
    found = connected.search_runs(
        [run.info.experiment_id], f"tags.\"mlflow.parentRunId\" = '{identifier}'"
    )
    return {child.data.tags["fedrisk.part"]: child for child in found}


def everything(connected, identifier):
    """All points of a run and its children."""
    runs = [connected.get_run(identifier), *children(connected, identifier).values()]
    return {
        (run.info.run_id, key, point.step, point.value, point.timestamp)
        for run in runs
        for key in run.data.metrics
        for point in connected.get_metric_history(run.info.run_id, key)
    }, sum(
        len(connected.get_metric_history(run.info.run_id, key))
        for run in runs
        for key in run.data.metrics
    )


@pytest.fixture(scope="module")
def logged(home):
    small = make_run(home, "logged")
    run_step("evaluate", "logged", small.context.settings)
    connected = client(small.context.settings)
    return small, connected, sync(small.run, small.context.settings)


def test_quality_tests_and_tables_are_logged(logged):
    small, connected, identifier = logged
    run = connected.get_run(identifier)
    assert run.data.metrics["validate/hospital-1/quarantined"] == 7
    assert run.data.metrics["validate/hospital-2/missing/bmi"] == pytest.approx(0.04)
    auroc = small.run.read("evaluate").figures["federated"]["auroc"]
    assert run.data.metrics["test/federated/auroc"] == pytest.approx(auroc)
    tables = {i.dataset.name: i.dataset for i in run.inputs.dataset_inputs}
    assert set(tables) == {
        f"stroke.hospital-{n}.{layer}" for n in (1, 2, 3) for layer in ("silver", "gold")
    }
    source = json.loads(tables["stroke.hospital-1.gold"].source)
    assert source["path"] == "/lake/hospital-1/gold"
    assert source["delta_table_version"] == 1


def test_each_model_has_its_own_run_with_rounds_by_step(logged):
    small, connected, identifier = logged
    found = children(connected, identifier)
    locals_ = {f"local:{name}" for name in small.context.plan.hospitals}
    assert set(found) == {"central", "federated", "reference"} | locals_
    federated = found["federated"]
    history = connected.get_metric_history(federated.info.run_id, "round/validation_auroc")
    events = read_events(small.run.folder("federated") / "rounds.jsonl")
    assert [(p.step, p.value) for p in history] == [(e.round, e.validation_auroc) for e in events]
    took_part = connected.get_metric_history(federated.info.run_id, "participation/hospital-2")
    assert [p.value for p in took_part] == [1, 1, 0, 1, 1, 1]
    assert federated.data.metrics["importance/age"] == pytest.approx(0.12)


def test_the_report_is_an_artifact_and_no_table_of_a_hospital_is(logged):
    _, connected, identifier = logged
    names = {f.path for f in connected.list_artifacts(identifier, "evaluate")}
    assert {"evaluate/report.html", "evaluate/model_card.md", "evaluate/roc.svg"} <= names
    assert connected.list_artifacts(identifier, "deal") == []


def test_logging_again_adds_nothing(logged):
    small, connected, identifier = logged
    before = everything(connected, identifier)
    assert sync(small.run, small.context.settings) == identifier
    assert everything(connected, identifier) == before
    assert before[1] == len(before[0])
    assert len(connected.get_run(identifier).inputs.dataset_inputs) == 6


def test_processes_that_open_a_run_at_once_get_the_same(home):
    small = make_run(home, "at-once")
    settings = small.context.settings
    connected = client(settings)
    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(lambda _: open_run(connected, small.context.plan, settings), range(6)))
    assert len(found) == 1


def test_rounds_logged_live_are_not_logged_twice(home):
    small = make_run(home, "live")
    settings = small.context.settings
    events = read_events(small.run.folder("federated") / "rounds.jsonl")
    sink = MlflowRounds(small.context.plan, settings)
    for event in events[:4]:
        sink.log_round(event)
    assert sink.close(400) == []
    identifier = sync(small.run, settings)
    connected = client(settings)
    federated = children(connected, identifier)["federated"].info.run_id
    steps = [p.step for p in connected.get_metric_history(federated, "round/seconds")]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]


def test_a_server_that_is_down_does_not_stop_training_and_is_noted(home, monkeypatch):
    small = make_run(home, "down")
    settings = settings_at(home).model_copy(update={"mlflow_uri": "http://127.0.0.1:9"})
    called = threading.Event()

    def slow(settings):
        assert called.wait(400)
        return client(settings)

    monkeypatch.setattr(live, "client", slow)
    sink = MlflowRounds(small.context.plan, settings)
    for event in read_events(small.run.folder("federated") / "rounds.jsonl"):
        # Would wait forever if it waited for the server.
        sink.log_round(event)
    called.set()
    (note,) = sink.close(400)
    assert "0 of 6 rounds" in note
    assert "127.0.0.1:9" in note


def test_a_server_that_is_down_is_an_error_that_names_it_without_its_password(home):
    small = make_run(home, "down-too")
    uri = "http://someone:secret@127.0.0.1:9"
    settings = settings_at(home).model_copy(update={"mlflow_uri": uri})
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1:9") as error:
        sync(small.run, settings)
    assert error.value.exit_code == 4
    assert "secret" not in str(error.value)
