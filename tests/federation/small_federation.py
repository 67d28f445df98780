"""Small synthetic hospitals, and the step `federated` over them as a process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from tests_processes import processes_of

from tasks.run.folder import RunFolder
from tasks.run.manifest import Manifest, TableVersion
from tasks.run.plan import Plan, read_plan
from tasks.run.step import Context
from tasks.settings import Settings
from tasks.study import Study
from tasks.telemetry.round_event import RoundEvent, read_events

ROWS = {"north": 300, "south": 240, "west": 180}
COLUMNS = ("age", "pressure", "sugar")


def small_study(**federation: Any) -> Study:
    """Three hospitals, three numbers and a flag."""
    number = {"type": "number", "modality": "clinical", "range": [-100, 300]}
    plan = {"rounds": 3, "local_epochs": 2, "batch_size": 32, "min_hospitals": 2, **federation}
    plan["deadlines"] = {"ready": 400, "round": 200, "run": 500, **plan.get("deadlines", {})}
    return Study.model_validate(
        {
            "name": "small",
            "title": "Small",
            "description": "For tests.",
            "owner": "tests",
            "pooling": "allowed",
            "seed": 7,
            "target": {"column": "outcome", "positive": ["1"], "negative": ["0"]},
            "columns": {
                **{name: {**number, "max_missing": 0.3} for name in COLUMNS},
                "smoker": {"type": "flag", "modality": "lifestyle"},
            },
            "source": {"kind": "own", "format": "csv"},
            "hospitals": {name: {"title": name, "path": f"{name}.csv"} for name in ROWS},
            "split": {"key": "small"},
            "federation": plan,
        }
    )


def part_rows(rows: int) -> dict[str, int]:
    """How many of a small table's rows are for training and for validation."""
    return {"train": rows * 3 // 5, "validation": rows // 5}


def gold_table(study: Study, hospital: str, rows: int) -> pa.Table:
    """Rows whose risk depends on age and smoking, with another base rate at each hospital."""
    draw = np.random.default_rng([len(hospital), ord(hospital[0])])
    shift = {"north": -0.5, "south": -1.5, "west": -1.0}[hospital]
    x = draw.normal(size=(rows, 3)) * [10, 20, 5] + [60, 120, 6]
    smoker = (draw.random(rows) < 0.3).astype(float)
    logit = 0.12 * (x[:, 0] - 60) + 0.8 * smoker + shift
    label = (draw.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int32)
    part = np.array(["train"] * 3 + ["validation", "test"])[np.arange(rows) % 5]
    table: dict[str, Any] = {
        "patient": [f"{hospital}-{i:05d}" for i in range(rows)],
        "part": part.tolist(),
        "label": label,
    }
    missing = draw.random((rows, 3)) < 0.1
    for place, name in enumerate(COLUMNS):
        held = x[:, place].tolist()
        table[name] = [None if missing[i, place] else held[i] for i in range(rows)]
        table[f"{name}__missing"] = missing[:, place].astype(float)
    table["smoker"] = smoker
    order = ["patient", "part", "label", *(feature.name for feature in study.features)]
    return pa.table({name: table[name] for name in order})


def features_manifest(run: str, hospital: str, uri: str, rows: int) -> Manifest:
    """What the step ``features`` leaves, as far as the federation reads it."""
    return Manifest(
        step="features",
        study="small",
        run=run,
        hospital=hospital,
        tables={"gold": TableVersion(uri=uri, version=0, rows=rows)},
        figures={"parts": {part: {"rows": n} for part, n in part_rows(rows).items()}},
    )


def make_context(home: Path, run: str = "r1", **federation: Any) -> Context:
    """A run whose gold tables are there, ready for the step ``federated``."""
    settings = Settings(home=home)
    study = small_study(**federation)
    folder = RunFolder(settings.runs, run)
    plan = Plan(
        run=run,
        study=study,
        study_file="small.yaml",
        source=None,
        hospitals=list(ROWS),
        promote=False,
        overrides=[],
        created=datetime.now(UTC).isoformat(),
    )
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / "plan.json").write_text(json.dumps(plan.model_dump(mode="json")))
    for name, rows in ROWS.items():
        uri = settings.table(name, study.name, "gold")
        if not Path(uri).exists():
            write_deltalake(uri, gold_table(study, name, rows))
        folder.write(features_manifest(run, name, uri, rows))
    return Context(plan=read_plan(folder), run=folder, settings=settings, hospital=None)


class Step:
    """The step ``federated`` as a process of its own, as a launcher starts it."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.folder = context.run.path / "files" / "federated"
        self.output = ""
        self.seen: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Step:
        environment = {**os.environ, "FEDRISK_HOME": str(self.context.settings.home)}
        run = self.context.run.run
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tasks.cli", "step", "federated"),
                *("--study", "small", "--run", run),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, deadline: float = 400) -> int:
        """Wait for the end; returns the exit code and keeps the output."""
        assert self._process is not None
        try:
            self.output = self._process.communicate(timeout=deadline)[0]
        except subprocess.TimeoutExpired:
            self._process.kill()
            logs = "\n".join(p.read_text()[-3000:] for p in self.folder.glob("*.log"))
            pytest.fail(f"the step did not end: {self._process.communicate()[0]}\n{logs}")
        return self._process.returncode

    def until_round(self, number: int, deadline: float = 400) -> None:
        """Wait until so many rounds are done."""
        end = time.monotonic() + deadline
        while len(self.events()) < number:
            assert self._process is not None
            assert self._process.poll() is None, self._process.communicate()[0]
            assert time.monotonic() < end, f"round {number} is not done"
            time.sleep(0.02)

    def events(self) -> list[RoundEvent]:
        return read_events(self.folder / "rounds.jsonl")

    def supernode(self, hospital: str) -> psutil.Process:
        """A hospital's SuperNode: of the two processes of that command, the session's leader."""
        own = str(self.folder / "private" / hospital)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if own in " ".join(process.cmdline()) and os.getsid(process.pid) == process.pid:
                    return process
        pytest.fail(f"{hospital} has no SuperNode")

    def server_app(self) -> psutil.Process:
        """The ServerApp: the fork of the SuperExec, which is the fork of the SuperLink."""
        own = str(self.folder / "private" / "superlink")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if own in command and os.getsid(process.pid) == process.pid:
                    [app] = [each for fork in process.children() for each in fork.children()]
                    return app
        pytest.fail("there is no SuperLink")

    def left(self) -> list[str]:
        """Processes that still work for this run."""
        return processes_of(self.folder)


def watch(step: Step) -> None:
    """Look at the processes and keys of a running federation."""
    step.until_round(1)
    # No round ends without its answer, so that all that is looked at is still there.
    held = step.supernode("west")
    held.suspend()
    try:
        _look(step)
    finally:
        held.resume()


def _look(step: Step) -> None:
    step.seen["modes"] = {
        path.name: path.stat().st_mode & 0o777
        for path in (step.folder / "private").rglob("*")
        if path.suffix == ".key" or path.name in ("hospital.json", "server.json", "secret")
    }
    for hospital in ROWS:
        process = step.supernode(hospital)
        told = " ".join([*process.environ().values(), *process.cmdline()])
        own = (step.folder / "private" / hospital / "hospital.json").read_text()
        step.seen[hospital] = told + own
        connections = process.net_connections("tcp")
        step.seen[f"{hospital} listens"] = {
            each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN
        }
        step.seen[f"{hospital} environment"] = process.environ()
