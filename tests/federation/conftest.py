"""Small synthetic hospitals, and one real federation of them for all tests that only look."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from tasks.manifest import Manifest, RunFolder, TableVersion
from tasks.plan import Plan, read_plan
from tasks.settings import Settings
from tasks.step import Context
from tasks.study import Study

ROWS = {"north": 300, "south": 240, "west": 180}
COLUMNS = ("age", "pressure", "sugar")


def small_study(**federation: Any) -> Study:
    """Three hospitals, three numbers and a flag."""
    number = {"type": "number", "modality": "clinical", "range": [-100, 100]}
    plan = {"rounds": 3, "local_epochs": 2, "batch_size": 32, "min_hospitals": 2, **federation}
    plan["deadlines"] = {"ready": 60, "round": 30, "run": 120, **plan.get("deadlines", {})}
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
        version = TableVersion(uri=uri, version=0, rows=rows)
        folder.write(
            Manifest(
                step="features", study="small", run=run, hospital=name, tables={"gold": version}
            )
        )
    return Context(plan=read_plan(folder), run=folder, settings=settings, hospital=None)


@dataclass(frozen=True)
class Finished:
    """A federation that has ended."""

    context: Context
    manifest: Manifest
    folder: Path
    output: str


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One lake for all federations of the session."""
    path = tmp_path_factory.mktemp("federation") / "home"
    yield path
    shutil.rmtree(path, ignore_errors=True)
