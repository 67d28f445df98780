"""Which calls to a busy Airflow are retried."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tasks.local_airflow import api_client as rest
from tasks.local_airflow.api_client import Airflow, AirflowError, AlreadyExists

LOCKED = {"detail": "database is locked"}


class Busy(ThreadingHTTPServer):
    """Answers like Airflow with a locked SQLite: the first calls fail with code 500."""

    failing = 0
    known = True
    state = "queued"
    tasks: tuple[str, ...] = ()
    unfit = False
    late = False
    """Performs a call before it fails; an existing object is not created again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str, str]] = []

    @property
    def calls(self) -> list[str]:
        return [method for method, path in self.asked if path != "/auth/token"]


class Answer(BaseHTTPRequestHandler):
    server: Busy

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.command, self.path))
        if self.path == "/auth/token":
            self.say(201, {"access_token": "t"})
        elif self.server.failing and not (self.server.late and self.command == "GET"):
            self.server.failing -= 1
            self.server.known = self.server.known or self.server.late
            self.say(500, LOCKED)
        elif self.command == "POST" and self.server.known and self.server.late:
            self.say(409, {"detail": "is there"})
        elif self.command == "POST" and self.server.unfit:
            self.say(400, {"detail": "rounds: 0 is less than 1"})
        elif self.command == "GET" and not self.server.known:
            self.say(404, {"detail": "no such pool"})
        elif self.path.partition("?")[0].endswith("/taskInstances"):
            found = [{"state": each} for each in self.server.tasks]
            self.say(200, {"task_instances": found, "total_entries": len(found)})
        else:
            self.say(200, {"state": self.server.state})

    do_GET = do_POST = do_PATCH = answer  # noqa: N815  (the library's names)

    def say(self, code: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on the tests' output."""


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Busy]:
    monkeypatch.setattr(rest.time, "sleep", lambda _: None)
    with Busy() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield server
        server.shutdown()


@pytest.fixture
def airflow(busy: Busy) -> Airflow:
    return Airflow(f"http://127.0.0.1:{busy.server_address[1]}", "admin", "x")


def test_an_idempotent_write_is_retried(busy: Busy, airflow: Airflow) -> None:
    busy.failing = 2
    airflow.fail("retrain_stroke", "r1")
    assert busy.calls == ["PATCH"] * 3


def test_retries_are_bounded(busy: Busy, airflow: Airflow) -> None:
    busy.failing = 100
    with pytest.raises(AirflowError, match="database is locked"):
        airflow.set_paused("retrain_stroke", False)
    assert busy.calls == ["PATCH"] * rest.CALL_TRIES


def test_one_try_is_one_call(busy: Busy, airflow: Airflow) -> None:
    busy.failing = 1
    with pytest.raises(AirflowError):
        airflow.fail("retrain_stroke", "r1", tries=1)
    assert busy.calls == ["PATCH"]


def test_an_existing_run_is_not_started_again(busy: Busy, airflow: Airflow) -> None:
    with pytest.raises(AlreadyExists, match="r1 of retrain_stroke"):
        airflow.trigger("retrain_stroke", "r1", {})
    assert busy.calls == ["GET"]


def test_a_busy_server_starts_a_run_once(busy: Busy, airflow: Airflow) -> None:
    busy.known, busy.failing, busy.late = False, 1, True
    airflow.trigger("retrain_stroke", "r1", {})
    assert busy.calls == ["GET", "POST", "POST"]


def test_a_rejected_run_is_not_retried(busy: Busy, airflow: Airflow) -> None:
    busy.known, busy.unfit = False, True
    with pytest.raises(AirflowError, match="rounds"):
        airflow.trigger("retrain_stroke", "r1", {})
    assert busy.calls == ["GET", "POST"]


def test_an_existing_pool_is_not_written(busy: Busy, airflow: Airflow) -> None:
    airflow.ensure_pool("spark", 2, "")
    assert busy.calls == ["GET"]


def test_a_busy_server_creates_a_pool(busy: Busy, airflow: Airflow) -> None:
    busy.known, busy.failing = False, 2
    airflow.ensure_pool("spark", 2, "")
    assert busy.calls == ["GET", "GET", "GET", "POST"]


def test_a_cancelled_run_that_the_scheduler_calls_a_success_is_failed(
    busy: Busy, airflow: Airflow
) -> None:
    busy.state, busy.tasks = "success", ("success", "failed", "skipped")
    assert airflow.state("retrain_stroke", "r1") == "failed"
    # A hospital that was lost for good is skipped, and the run ends well.
    busy.tasks = ("success", "skipped")
    assert airflow.state("retrain_stroke", "r1") == "success"
