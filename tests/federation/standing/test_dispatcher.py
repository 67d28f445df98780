"""The dispatcher and the step that submits a run, with the real store between and no Flower."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_federation import make_context

from tasks.errors import DataError, FederationError, StoreUnavailable
from tasks.federation.deployment.certificates import make_node_key
from tasks.federation.flower import control_cli as control
from tasks.federation.server import checkpoint
from tasks.federation.server.run_state import ServerConfig
from tasks.federation.server.state import ServerState
from tasks.federation.standing import dispatcher, heartbeat, submission
from tasks.federation.standing.dispatcher import Dispatcher
from tasks.files import write_atomically
from tasks.model.scaling import Scaler
from tasks.objects import get, keys, put
from tasks.run.manifest import Manifest
from tasks.run.step import Context, run_step
from tasks.run.stored_run import open_run
from tasks.settings import Settings
from tasks.telemetry.round_event import RoundEvent, append_event

OUTCOME = {
    "validation": {"auroc": 0.7, "loss": 0.5},
    "threshold": 0.1,
    "rounds": 3,
    "best_round": 3,
    "stopped": "all 3 rounds are done",
    "bytes_up": 1,
    "bytes_down": 1,
    "participation": {},
    "lost": {},
    "intercepts": {},
    "notes": [],
}
NO_MORE = b'{"kind": "", "message": "the test is over"}'


def state_after(number: int) -> ServerState:
    model = np.full(4, number, np.float32)
    return ServerState(number, model, Scaler(np.zeros(3), np.ones(3)), model)


class Standing:
    """A dispatcher whose SuperLink is played by the test: it says what a run's ServerApp leaves."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.submitted, self.stopped = root, list[Path](), list[str]()
        self.status, self.runs = "running", list[str]()
        self.on_status: Callable[[], None] = lambda: None
        (root / "registered").mkdir()
        for name in ("north", "south", "west"):
            (root / "keys" / name).mkdir(parents=True)
            public = make_node_key(root / "keys" / name)[1]
            shutil.copy(public, root / "registered" / f"{name}.pub")
        patch.setattr(control, "register", lambda name, path: len(name))
        patch.setattr(control, "submit", self.submit)
        patch.setattr(control, "flwr", self.flwr)
        patch.setattr(submission, "RESULT_POLL", 0.02)
        self.settings = Settings(
            home=root / "superlink", store=f"file://{root}/store", registered=f"{root}/registered"
        )
        patch.setattr(heartbeat, "BEAT_EVERY", 0.02)
        self.now = 0.0
        self.start()

    def start(self) -> None:
        """Start the SuperLink (again), which remembers nothing."""
        shutil.rmtree(self.root / "dispatcher", ignore_errors=True)
        self.dispatcher = Dispatcher(self.settings, self.root / "dispatcher", lambda: self.now)
        self.dispatcher.look()

    def requests(self) -> list[str]:
        """What lies where requests do."""
        return sorted(keys(self.settings.store, submission.REQUESTS))

    def submit(self, app: Path, private: Path, run: str) -> str:
        assert app.is_dir()
        assert (private / "server.json").is_file()
        self.submitted.append(private)
        return f"flower-{len(self.submitted)}"

    def flwr(self, *arguments: str) -> dict[str, Any]:
        if arguments[0] == "stop":
            self.stopped.append(arguments[1])
            return {}
        self.on_status()
        return {"runs": [{"status": self.status}]}

    def leave(self, name: str, content: bytes, number: int = -1) -> None:
        """As the ServerApp of the newest run."""
        write_atomically(self.submitted[number].parent / name, content)

    def leave_round(self, number: int) -> None:
        """As the newest run's ServerApp after a round: its event, and its checkpoint."""
        folder = self.submitted[-1].parent
        config = ServerConfig.model_validate_json((self.submitted[-1] / "server.json").read_bytes())
        event = RoundEvent(
            round=number, rounds=3, seconds=1.0, selected=[], replied=[], learning_rate=0.1
        )
        append_event(folder / "rounds.jsonl", event)
        checkpoint.save(folder / "checkpoint.npz", state_after(number), config.fingerprint)

    def resumed(self) -> int | None:
        """After which round the newest run's ServerApp would go on; None for none."""
        config = ServerConfig.model_validate_json((self.submitted[-1] / "server.json").read_bytes())
        path = self.submitted[-1].parent / "checkpoint.npz"
        found = checkpoint.load(path, config.fingerprint)
        return found and found.round

    def end(self, number: int = -1, **failure: str) -> None:
        name, said = ("failure.json", failure) if failure else ("outcome.json", OUTCOME)
        write_atomically(self.submitted[number] / name, json.dumps(said).encode())

    def stored(self, run: str, name: str) -> bytes | None:
        return get(self.settings.store, f"consortium/{run}/files/federated/{name}")

    def context(self, run: str) -> Context:
        """A run in the store, and the machine of its step ``federated``."""
        self.runs.append(run)
        made = make_context(self.root / "airflow", run)
        settings = Settings(
            home=self.root / "airflow",
            store=self.settings.store,
            federation="standing",
            mlflow_uri=f"sqlite:///{self.root}/mlflow.db",
        )
        put(
            settings.store,
            f"consortium/{run}/plan.json",
            (made.run.path / "plan.json").read_bytes(),
        )
        return Context(made.plan, open_run(settings, run), settings, None)

    def until(self, holds: Callable[[], object], look: bool = True) -> None:
        end = time.monotonic() + 400
        while not holds():
            assert time.monotonic() < end
            if look:
                self.dispatcher.look()
            time.sleep(0.02)


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Standing:
    monkeypatch.setattr("tasks.federation.federated.MlflowRounds", _NoRounds)
    return Standing(tmp_path, monkeypatch)


class _NoRounds:
    def __init__(self, *_: object) -> None: ...

    def log_round(self, event: object) -> None: ...

    def close(self, deadline: float = 0) -> list[str]:
        return []


@pytest.fixture
def pool(link: Standing) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made
        for run in link.runs:  # so that no step of a test that failed waits for its deadline
            put(link.settings.store, f"consortium/{run}/files/federated/failure.json", NO_MORE)


def step(pool: ThreadPoolExecutor, context: Context) -> Future[Manifest]:
    return pool.submit(run_step, "federated", context.run.run, context.settings)


def test_two_attempts_that_fail_leave_the_dispatchers_newest_checkpoint(
    link: Standing, pool: ThreadPoolExecutor
) -> None:
    context = link.context("r1")
    for number in (1, 2):
        running = step(pool, context)
        link.until(lambda number=number: len(link.submitted) == number)
        assert link.resumed() == (1 if number == 2 else None)
        link.leave_round(number)
        left = (link.submitted[-1].parent / "checkpoint.npz").read_bytes()
        link.leave("model.safetensors", b"model %d" % number)
        link.end(kind="FederationError", message="too few hospitals")
        link.until(running.done)
        with pytest.raises(FederationError, match="too few hospitals"):
            running.result()
        assert link.stored("r1", "checkpoint.npz") == left
    running = step(pool, context)
    link.until(lambda: len(link.submitted) == 3)
    assert link.resumed() == 2
    link.leave("model.safetensors", b"model 3")
    link.end()
    link.until(running.done)
    manifest = running.result()
    assert (context.run.path / manifest.files["model"]).read_bytes() == b"model 3"
    assert link.stored("r1", "model.safetensors") == b"model 3"
    assert link.stored("r1", "checkpoint.npz") == left


def test_a_run_that_trains_is_kept_for_the_next_attempt_of_its_step(
    link: Standing, pool: ThreadPoolExecutor
) -> None:
    context = link.context("r1")
    first = step(pool, context)
    link.until(lambda: link.submitted)
    # It writes what the rounds tell once it knows that its run is taken up.
    link.leave_round(1)
    kept = link.submitted[-1].parent / "checkpoint.npz"
    link.dispatcher.pass_on_checkpoints()
    assert link.stored("r1", "checkpoint.npz") == kept.read_bytes()
    # Its ServerApp waits for that before it asks the hospitals anything more.
    assert int((link.submitted[-1] / "stored").read_bytes()) == kept.stat().st_mtime_ns
    link.until((context.run.path / "files/federated/rounds.jsonl").exists)
    # The first attempt is lost without a word (its machine died), and Airflow starts another.
    second = step(pool, context)
    link.until(first.done)
    with pytest.raises(FederationError, match="another attempt"):
        first.result()
    for _ in range(3):
        link.dispatcher.look()
    assert not second.done()
    link.leave("model.safetensors", b"model")
    link.leave("rounds.jsonl", b"")
    link.end()
    link.until(second.done)
    assert second.result().figures["rounds"] == 3
    assert len(link.submitted) == 1
    assert link.stopped == []


def other_table(context: Context) -> None:
    manifest = context.run.read("features", "north")
    version = manifest.tables["gold"].version + 1
    newer = manifest.tables["gold"].model_copy(update={"version": version})
    context.run.write(manifest.model_copy(update={"tables": {"gold": newer}}))


def test_a_run_that_trains_with_another_table_is_started_anew(
    link: Standing, pool: ThreadPoolExecutor
) -> None:
    context = link.context("r1")
    first = step(pool, context)
    link.until(lambda: link.submitted)
    for number in (1, 2):
        link.leave_round(number)
    link.until(lambda: link.stored("r1", "checkpoint.npz"))
    other_table(context)
    second = step(pool, context)
    link.until(lambda: len(link.submitted) == 2 and first.done())
    assert link.stopped == ["flower-1"]
    assert link.resumed() is None
    assert link.stored("r1", "rounds.jsonl") is None
    link.leave_round(1)
    link.leave("model.safetensors", b"model")
    link.end()
    link.until(second.done)
    assert second.result().figures["rounds"] == 3


def test_an_attempt_with_another_table_reports_its_own_rounds_and_no_earlier_ones(
    link: Standing, pool: ThreadPoolExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    context = link.context("r1")
    running = step(pool, context)
    link.until(lambda: link.submitted)
    for number in (1, 2):
        link.leave_round(number)
    link.end(kind="FederationError", message="too few hospitals")
    link.until(running.done)
    other_table(context)
    running = step(pool, context)
    time.sleep(0.2)
    capsys.readouterr()
    link.until(lambda: len(link.submitted) == 2)
    assert link.resumed() is None
    link.leave_round(1)
    link.leave("model.safetensors", b"model")
    link.end()
    link.until(running.done)
    manifest = running.result()
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round ")]
    assert [line.split("/")[0] for line in told] == ["round 1"]
    events = (context.run.path / manifest.files["rounds"]).read_text().splitlines()
    assert [json.loads(each)["round"] for each in events] == [1]


def test_how_an_earlier_attempt_ended_is_not_believed(
    link: Standing, pool: ThreadPoolExecutor
) -> None:
    context = link.context("r1")
    running = step(pool, context)
    link.until(lambda: link.submitted)
    failure = {"kind": "DataError", "message": "of yesterday", "attempt": "0123456789abcdef"}
    base = "consortium/r1/files/federated"
    put(link.settings.store, f"{base}/failure.json", json.dumps(failure).encode())
    time.sleep(0.2)
    assert not running.done()
    link.leave("model.safetensors", b"model")
    link.leave("rounds.jsonl", b"")
    link.end()
    link.until(running.done)
    assert running.result().figures["rounds"] == 3


def test_without_its_request_a_run_is_stopped(link: Standing, pool: ThreadPoolExecutor) -> None:
    context = link.context("r1")
    running = step(pool, context)
    link.until(lambda: link.submitted)
    (link.root / "store" / "consortium" / "requests" / "r1.json").unlink()
    link.dispatcher.look()
    assert link.stopped == ["flower-1"]
    assert link.stored("r1", "failure.json") is None
    assert not running.done()


class Store:
    """The step's way to the store, which may be away."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.away = threading.Event()
        for module, name in ((submission, "get"), (submission, "remove"), (heartbeat, "put")):
            patch.setattr(module, name, self._or_away(getattr(module, name)))

    def _or_away(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if self.away.is_set():
                raise StoreUnavailable("away")
            return real(*arguments)

        return call


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(monkeypatch)


def test_the_step_bears_a_store_that_is_away_for_a_while(
    link: Standing, pool: ThreadPoolExecutor, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = step(pool, link.context("r1"))
    link.until(lambda: link.submitted)
    store.away.set()
    time.sleep(0.2)
    assert not running.done()
    store.away.clear()
    time.sleep(0.1)
    monkeypatch.setattr(submission, "STORE_AWAY", 0.1)
    store.away.set()
    with pytest.raises(StoreUnavailable):
        running.result(timeout=400)


def test_a_superlink_that_takes_no_run_up_is_named(
    link: Standing, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "ACCEPT_WITHIN", 0.1)
    with pytest.raises(FederationError, match="no standing federation took the run up"):
        step(pool, link.context("r1")).result(timeout=400)
    assert link.requests() == []


def test_a_superlink_is_not_blamed_for_a_store_that_is_away_before_the_run_is_taken_up(
    link: Standing, pool: ThreadPoolExecutor, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "ACCEPT_WITHIN", 3.0)
    running = step(pool, link.context("r1"))
    link.until(lambda: "consortium/requests/r1.json" in link.requests(), look=False)
    store.away.set()
    time.sleep(3.5)
    assert not running.done()
    monkeypatch.setattr(submission, "ACCEPT_WITHIN", 90.0)
    store.away.clear()
    link.until(lambda: link.submitted)
    link.end(kind="FederationError", message="the end")
    link.until(running.done)
    with pytest.raises(FederationError, match="the end"):
        running.result()


def dies(running: Future[Manifest], store: Store, patch: pytest.MonkeyPatch) -> None:
    """Let a step end with its request left: the store is away, but it might have been killed."""
    with patch.context() as impatient:
        impatient.setattr(submission, "STORE_AWAY", 0.1)
        store.away.set()
        with pytest.raises(StoreUnavailable):
            running.result(timeout=400)
    store.away.clear()


def test_a_run_whose_step_has_died_is_stopped_and_its_next_attempt_goes_on(
    link: Standing, pool: ThreadPoolExecutor, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = link.context("r1")
    running = step(pool, context)
    link.until(lambda: link.submitted)
    link.leave_round(1)
    dies(running, store, monkeypatch)
    link.dispatcher.look()
    link.now += dispatcher.SILENT
    link.dispatcher.look()
    assert link.stopped == []
    link.now += 1
    link.dispatcher.look()
    assert link.stopped == ["flower-1"]
    assert link.requests() == []
    assert b"no heartbeat of the step" in (link.stored("r1", "failure.json") or b"")
    link.dispatcher.look()
    assert len(link.submitted) == 1
    running = step(pool, context)
    link.until(lambda: len(link.submitted) == 2)
    assert link.resumed() == 1
    link.end(kind="FederationError", message="the end")
    link.until(running.done)


def test_the_request_of_a_run_that_has_ended_without_its_step_is_deleted(
    link: Standing, pool: ThreadPoolExecutor, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = step(pool, link.context("r1"))
    link.until(lambda: link.submitted)
    dies(running, store, monkeypatch)
    link.leave("model.safetensors", b"model")
    link.end()
    link.dispatcher.look()
    link.now += dispatcher.SILENT + 1
    link.dispatcher.look()
    assert link.requests() == []
    assert link.stored("r1", "outcome.json") is not None
    assert link.stored("r1", "failure.json") is None
    assert link.stopped == []


def test_a_step_whose_store_was_away_for_as_long_as_it_bears_keeps_its_run(
    link: Standing, pool: ThreadPoolExecutor, store: Store
) -> None:
    running = step(pool, link.context("r1"))
    link.until(lambda: link.submitted)
    for _ in range(3):
        store.away.set()
        time.sleep(0.1)
        before = get(link.settings.store, submission.heartbeat_of("r1"))
        link.dispatcher.look()
        link.now += submission.STORE_AWAY + submission.DEADLINE_SLACK
        link.dispatcher.look()
        store.away.clear()
        link.until(
            lambda before=before: get(link.settings.store, submission.heartbeat_of("r1")) != before
        )
    assert link.stopped == []
    link.end(kind="FederationError", message="the end")
    link.until(running.done)


@pytest.mark.parametrize("call", ["keys", "get"])
def test_no_heartbeat_is_missed_while_the_dispatchers_store_is_away(
    link: Standing, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_EVERY", 60.0)
    running = step(pool, link.context("r1"))
    link.until(lambda: link.submitted)

    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(dispatcher, call, away)
        for _ in range(5):
            link.now += dispatcher.SILENT
            link.dispatcher.look()
    link.now += dispatcher.SILENT
    link.dispatcher.look()
    assert link.stopped == []
    link.end(kind="FederationError", message="the end")
    link.until(running.done)


def test_a_superlink_that_starts_again_trains_for_a_step_that_waits(
    link: Standing, pool: ThreadPoolExecutor
) -> None:
    running = step(pool, link.context("r1"))
    link.until(lambda: link.submitted)
    link.leave_round(1)
    link.dispatcher.look()
    link.start()
    link.until(lambda: len(link.submitted) == 2)
    assert link.resumed() == 1
    link.end(kind="FederationError", message="the end")
    link.until(running.done)


def test_a_superlink_that_starts_again_trains_for_no_step_that_has_died(
    link: Standing, pool: ThreadPoolExecutor, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = step(pool, link.context("r1"))
    link.until(lambda: link.submitted)
    dies(running, store, monkeypatch)
    link.start()
    for _ in range(3):
        link.dispatcher.look()
    assert len(link.submitted) == 1
    link.now += dispatcher.SILENT + 1
    link.dispatcher.look()
    assert link.requests() == []
    assert len(link.submitted) == 1


def test_one_run_that_may_not_be_read_is_its_own_failure_and_no_other_runs(
    link: Standing, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts, real = {name: link.context(name) for name in ("r1", "r2")}, dispatcher.put

    def refusing(store: str, key: str, content: bytes) -> None:
        if key == "consortium/r1/files/federated/checkpoint.npz":
            raise DataError("this party's key may not write it")
        real(store, key, content)

    monkeypatch.setattr(dispatcher, "put", refusing)
    running = {name: step(pool, context) for name, context in contexts.items()}
    link.until(lambda: len(link.submitted) == 2)
    numbers = {private.parent.name: n for n, private in enumerate(link.submitted)}
    link.leave("checkpoint.npz", b"1", numbers["r1"])
    link.until(running["r1"].done)
    with pytest.raises(DataError, match="may not write"):
        running["r1"].result()
    link.leave("model.safetensors", b"model", numbers["r2"])
    link.leave("rounds.jsonl", b"", numbers["r2"])
    link.end(numbers["r2"])
    link.until(running["r2"].done)
    assert running["r2"].result().figures["rounds"] == 3


def test_a_store_that_is_away_while_a_run_starts_is_asked_again(
    link: Standing, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, real, calls = link.context("r1"), dispatcher.get, list[str]()

    def sometimes(store: str, key: str) -> bytes | None:
        calls.append(key)
        if key.endswith("checkpoint.npz") and len(calls) < 12:
            raise StoreUnavailable("away")
        return real(store, key)

    monkeypatch.setattr(dispatcher, "get", sometimes)
    running = step(pool, context)
    link.until(lambda: link.submitted)
    assert len(calls) >= 12
    link.end(kind="StoreUnavailable", message="away again")
    link.until(running.done)
    with pytest.raises(StoreUnavailable) as error:
        running.result()
    assert error.value.exit_code == 4


def test_files_that_come_and_go_while_the_dispatcher_looks_do_no_harm(
    link: Standing, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = link.context("r1")
    running = step(pool, context)
    link.until(lambda: link.submitted)
    folder = link.submitted[0].parent
    # A link to nothing is what a file is that vanishes between listing and looking.
    (folder / ".checkpoint.npz.a1b2").symlink_to(folder / "gone")
    (folder / "checkpoint.npz").symlink_to(folder / "gone")
    for _ in range(3):
        link.dispatcher.look()
    assert link.stored("r1", "failure.json") is None
    assert link.stopped == []
    link.end(kind="FederationError", message="the end")
    link.until(running.done)


def test_a_run_that_ends_while_its_status_is_asked_for_keeps_its_outcome(
    link: Standing, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "STATUS_EVERY", 0.0)
    context = link.context("r1")

    def ends() -> None:
        link.status = "finished:completed"
        link.leave("model.safetensors", b"model")
        link.leave("rounds.jsonl", b"")
        link.end()

    link.on_status = ends
    running = step(pool, context)
    link.until(running.done)
    assert running.result().figures["rounds"] == 3


def test_a_serverapp_that_ends_without_a_word_is_a_failure(
    link: Standing, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "STATUS_EVERY", 0.0)
    link.status = "finished:failed"
    running = step(pool, link.context("r1"))
    link.until(running.done)
    with pytest.raises(FederationError, match="without a word"):
        running.result()


def test_a_run_may_be_called_as_a_folder_of_the_dispatcher(
    link: Standing, pool: ThreadPoolExecutor
) -> None:
    for number, name in enumerate(("app", "keys", "runs"), 1):
        running = step(pool, link.context(name))
        link.until(lambda number=number: len(link.submitted) == number)
        link.end(kind="FederationError", message="the end")
        link.until(running.done)


def test_a_request_that_cannot_be_read_is_refused_once(
    link: Standing, caplog: pytest.LogCaptureFixture
) -> None:
    put(link.settings.store, "consortium/requests/r9.json", b'{"attempt": "a1", "no": "request"}')
    for _ in range(3):
        link.dispatcher.look()
    assert len([each for each in caplog.records if "is given up" in each.message]) == 1
    failure = json.loads(link.stored("r9", "failure.json") or b"{}")
    assert failure["attempt"] == "a1"
    assert link.submitted == []
