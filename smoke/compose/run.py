"""The compose stack's run: it is waited for, and what came of it is looked at."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoke.command import StackError
from smoke.compose.limits import Peak
from smoke.compose.stack import Project
from smoke.http import page_of
from smoke.table import Table
from tasks.local_airflow.api_client import Airflow, AirflowError
from tasks.run.folder import RunFolder
from tasks.telemetry.tracking import RUN_TAG

DAG, MODEL = "retrain_stroke", "fedrisk-stroke"
RUNS = "/var/lib/fedrisk/runs"
DEADLINE = 1500.0


def over_rest(table: Table, airflow: Airflow, run: str) -> None:
    """Trigger a run over REST, which waits while its DAG is paused, and take it back.

    Args:
        table: Gets the checks.
        airflow: The stack's Airflow, whose DAG is paused.
        run: The run's id.
    """
    airflow.trigger(DAG, run, {})
    state = airflow.state(DAG, run)
    airflow.fail(DAG, run)
    table.check(
        "over-rest", "a run is triggered over REST, and taken back", state == "queued", state
    )
    try:
        airflow.trigger(DAG, f"{run}-unfit", {"rounds": 0})
        refused = "taken"
    except AirflowError as error:
        refused = str(error)
    table.check(
        "unfit",
        "a value that the form does not take is refused over REST",
        "rounds" in refused,
        refused,
    )


@dataclass
class Trained:
    """One run of the stack.

    Attributes:
        table: Gets the checks.
        stack: The stack, which has had no other run.
        guest: The project of the new hospital's kit.
        airflow: The stack's Airflow.
        mlflow: Address of the stack's MLflow.
        run: Airflow's id of the run.
    """

    table: Table
    stack: Project
    guest: Project
    airflow: Airflow
    mlflow: str
    run: str

    def look(self, hospitals: Collection[str]) -> None:
        """Wait for its end, and check all of it.

        Args:
            hospitals: Who shall have trained it.

        Raises:
            StackError: It did not end well; nothing else is looked at.
        """
        peak = Peak()
        state = self._wait(peak)
        tasks = {
            f"{t['task_id']}[{t['map_index']}]": t["state"]
            for t in self.airflow.tasks(DAG, self.run)
        }
        bad = {name: found for name, found in tasks.items() if found != "success"}
        # Airflow's id has signs that a path should not have; the folder is the only one.
        folders = self._folders()
        if not self.table.check(
            "ended",
            "the run ends well, every task of it",
            state == "success" and not bad and len(folders) == 1,
            bad or f"{len(tasks)} tasks, run {', '.join(folders)}",
        ):
            raise StackError(f"the run is {state}: {bad}; {folders}; {self._endings()}")
        folder = folders[0]
        self._trained(folder, hospitals)
        self._crowned(folder)
        peak.check(self.table, [self.stack, self.guest])

    def copy(self, target: Path) -> RunFolder:
        """Copy its folder out of the stack.

        Args:
            target: Where to; it is made.
        """
        (folder,) = self._folders()
        target.mkdir()
        self.stack.compose("cp", f"scheduler:{RUNS}/{folder}", str(target))
        return RunFolder(target, folder)

    def _folders(self) -> list[str]:
        return self.stack.inside("scheduler", "ls", RUNS).stdout.split()

    def _wait(self, peak: Peak) -> str:
        began, state = time.monotonic(), "queued"
        while state not in ("success", "failed") and time.monotonic() - began < DEADLINE:
            for project in (self.stack, self.guest):
                peak.see(project)
            time.sleep(3)
            state = self.airflow.state(DAG, self.run)
        return state

    def _trained(self, folder: str, hospitals: Collection[str]) -> None:
        figures = self._manifest(folder, "federated")
        expected = dict.fromkeys(hospitals, figures["rounds"])
        started = f"run {folder}: started" in self.stack.log("superlink")
        self.table.check(
            "took-part",
            "all hospitals took part in all rounds, on the standing federation",
            figures["participation"] == expected and not figures["lost"] and started,
            {
                "rounds": figures["participation"],
                "lost": self._lost(folder),
                "the standing SuperLink started it": started,
            },
        )

    def _crowned(self, folder: str) -> None:
        """Whether the champion that MLflow has is the model of this run."""
        told = page_of(
            f"{self.mlflow}/api/2.0/mlflow/registered-models/alias?name={MODEL}&alias=champion"
        )
        found = json.loads(told)["model_version"]
        tags = {tag["key"]: tag["value"] for tag in found.get("tags", ())}
        figures = self._manifest(folder, "promote")
        self.table.check(
            "champion",
            "MLflow has the champion, and it is this run's model",
            tags.get(RUN_TAG) == folder
            and figures["champion"] is True
            and str(figures["model_version"]) == str(found["version"]),
            f"version {found['version']} of run {tags.get(RUN_TAG)}; the run's own is version "
            f"{figures['model_version']}",
        )

    def _manifest(self, folder: str, step: str) -> Any:
        told = self.stack.inside("scheduler", "cat", f"{RUNS}/{folder}/manifests/{step}.json")
        return json.loads(told.stdout)["figures"]

    def _lost(self, folder: str) -> list[str]:
        """What the rounds' events say of hospitals that did not answer."""
        path = f"{RUNS}/{folder}/files/federated/rounds.jsonl"
        events = self.stack.inside("scheduler", "cat", path).stdout.splitlines()
        return [event["note"] for event in map(json.loads, events) if event["lost"]]

    def _endings(self) -> str:
        script = f"cat {RUNS}/*/ends/*.json"
        return self.stack.inside("scheduler", "sh", "-c", script).stdout[-1500:]
