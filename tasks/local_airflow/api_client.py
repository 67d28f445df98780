"""A client of Airflow's REST API on the standard library, with a deadline on every call."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from tasks.errors import ExitCode, FedriskError

CALL_DEADLINE = 30.0
CALL_TRIES = 4


class AirflowError(FedriskError):
    """Airflow rejected a call, or did not complete it in time."""


class AirflowBusy(FedriskError):  # noqa: N818  (names the state)
    """Another command uses the home's Airflow."""

    exit_code = ExitCode.TRANSIENT


class NotFound(AirflowError):  # noqa: N818  (HTTP 404)
    """Airflow has no such object."""


class AlreadyExists(AirflowError):  # noqa: N818  (HTTP 409)
    """Airflow already has an object of that name."""


class Airflow:
    """One running Airflow."""

    def __init__(self, url: str, user: str, password: str) -> None:
        """Store the address and the credentials; no call is made yet.

        Args:
            url: Base address without a trailing slash.
            user: The user to sign in.
            password: The user's password.
        """
        self.url = url
        self._user, self._password, self._token = user, password, ""
        # Calls to this machine must not go through a proxy of the environment.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _call(self, method: str, path: str, body: object = None) -> Any:
        if not self._token and path != "/auth/token":
            self._sign_in()
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        if self._token:
            request.add_header("authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=CALL_DEADLINE) as reply:
                return json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", errors="replace")[:500]
            kind = {404: NotFound, 409: AlreadyExists}.get(error.code, AirflowError)
            raise kind(f"Airflow: {method} {path}: {error.code} {text}") from None

    def _get(self, path: str) -> Any:
        return self._retry("GET", path)

    def _retry(self, method: str, path: str, body: object = None, tries: int = CALL_TRIES) -> Any:
        """Make an idempotent call and retry it where the server (SQLite, two cores) is busy."""
        for attempt in range(tries):
            try:
                return self._call(method, path, body)
            except (OSError, AirflowError) as error:
                permanent = isinstance(error, NotFound) or " 4" in str(error)[:200]
                if permanent or attempt == tries - 1:
                    if isinstance(error, AirflowError):
                        raise
                    raise AirflowError(f"Airflow at {self.url} does not answer: {error}") from None
                time.sleep(0.5 * 2**attempt)
        raise AssertionError

    def _sign_in(self) -> None:
        answer = self._call(
            "POST", "/auth/token", {"username": self._user, "password": self._password}
        )
        self._token = str(answer["access_token"])

    def healthy(self) -> bool:
        """Whether the API server answers and reports a healthy scheduler."""
        try:
            with self._opener.open(f"{self.url}/api/v2/monitor/health", timeout=5) as reply:
                health = json.loads(reply.read())
        except (OSError, ValueError):
            return False
        return bool(health["scheduler"]["status"] == "healthy")

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool unless it exists."""
        body = {"name": name, "slots": slots, "description": description}
        # Reading first avoids a write that would compete with the scheduler's.
        with contextlib.suppress(NotFound):
            self._get(f"/api/v2/pools/{_quoted(name)}")
            return
        with contextlib.suppress(AlreadyExists):
            self._retry("POST", "/api/v2/pools", body)

    def dag(self, dag: str) -> dict[str, Any] | None:
        """A DAG's details; None where Airflow has no such DAG or a stale one."""
        try:
            found: dict[str, Any] = self._get(f"/api/v2/dags/{dag}/details")
        except NotFound:
            return None
        return None if found.get("is_stale") else found

    def import_errors(self) -> list[str]:
        """The import errors of DAG files, one text each."""
        found = self._get("/api/v2/importErrors?limit=20")["import_errors"]
        return [f"{each['filename']}: {each['stack_trace']}" for each in found]

    def set_paused(self, dag: str, paused: bool) -> None:
        """Pause or unpause a DAG."""
        self._retry("PATCH", f"/api/v2/dags/{dag}", {"is_paused": paused})

    def trigger(self, dag: str, run: str, conf: dict[str, Any]) -> None:
        """Start a run exactly once, also where the call has to be retried.

        Raises:
            AlreadyExists: There is a run of this id.
        """
        with contextlib.suppress(NotFound):
            self.state(dag, run)
            raise AlreadyExists(f"Airflow has a run {run} of {dag} already.")
        body = {"dag_run_id": run, "logical_date": None, "conf": conf}
        # A run that exists now was created by a try whose answer was lost.
        with contextlib.suppress(AlreadyExists):
            self._retry("POST", f"/api/v2/dags/{dag}/dagRuns", body)

    def resume(self, dag: str, run: str) -> bool:
        """Clear all tasks of a run that have not succeeded.

        Marking a run as failed skips its tasks that have not started, so Airflow's own
        "only failed" would leave them out.

        Returns:
            Whether there was such a task.
        """
        open_tasks = [
            [task["task_id"], task["map_index"]] if task["map_index"] >= 0 else task["task_id"]
            for task in self.tasks(dag, run)
            if task["state"] != "success"
        ]
        if not open_tasks:
            return False
        body = {
            "dry_run": False,
            "dag_run_id": run,
            "only_failed": False,
            "reset_dag_runs": True,
            "task_ids": open_tasks,
        }
        self._call("POST", f"/api/v2/dags/{dag}/clearTaskInstances", body)
        return True

    def active_runs(self, dag: str = "~") -> list[tuple[str, str]]:
        """DAG and run ids of the queued and running runs.

        Args:
            dag: Only those of this DAG.
        """
        path = f"/api/v2/dags/{dag}/dagRuns?state=running&state=queued&limit=50"
        found = self._get(path)["dag_runs"]
        return [(str(each["dag_id"]), str(each["dag_run_id"])) for each in found]

    def fail(self, dag: str, run: str, tries: int = CALL_TRIES) -> None:
        """Mark a run as failed; Airflow then terminates its tasks.

        Args:
            dag: The run's DAG.
            run: The run's id.
            tries: Maximum number of tries.
        """
        path = f"/api/v2/dags/{dag}/dagRuns/{_quoted(run)}"
        self._retry("PATCH", path, {"state": "failed"}, tries)

    def state(self, dag: str, run: str) -> str:
        """State of a run: queued, running, success or failed.

        A scheduler that decides on a run while it is marked as failed sets it to success
        afterwards: SQLite locks no row, and skipped tasks count as success. Such a run still has
        failed tasks.
        """
        state = str(self._get(f"/api/v2/dags/{dag}/dagRuns/{_quoted(run)}")["state"])
        if state == "success" and any(t["state"] == "failed" for t in self.tasks(dag, run)):
            return "failed"
        return state

    def tasks(self, dag: str, run: str) -> list[dict[str, Any]]:
        """All task instances of a run."""
        path = f"/api/v2/dags/{dag}/dagRuns/{_quoted(run)}/taskInstances?limit=100"
        found, total = list[dict[str, Any]](), 1
        while len(found) < total:
            answer = self._get(f"{path}&offset={len(found)}")
            total = int(answer["total_entries"])
            found += answer["task_instances"]
            if not answer["task_instances"]:
                break
        return found


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")
