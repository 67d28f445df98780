"""Rows for the model's tests: made up, and the real stroke table where it stands."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tasks.model.rows import PARTS, Rows
from tasks.study import Study, read_study


@pytest.fixture(scope="session")
def study(checkout: Path) -> Study:
    """The stroke study."""
    return read_study(checkout / "dags" / "studies" / "stroke.yaml", [])


def parts_of(patients: list[str], key: str) -> np.ndarray:
    """The documented split: SHA-256 over key and id; places in ``PARTS``."""
    share = [
        int(hashlib.sha256(f"{key}:{patient}".encode()).hexdigest()[:13], 16) / 16**13
        for patient in patients
    ]
    return np.digitize(share, [0.6, 0.8]).astype(np.int8)


@pytest.fixture(scope="session")
def made_up(study: Study) -> Rows:
    """900 rows in the stroke study's features, whose risk rises with age and glucose."""
    generator = np.random.default_rng(5)
    n = 900
    x = np.zeros((n, len(study.features)))
    for place, feature in enumerate(study.features):
        if feature.kind == "numeric":
            x[:, place] = generator.normal(80, 20, n)
        else:
            x[:, place] = generator.random(n) < 0.3
    names = [feature.name for feature in study.features]
    x[generator.random(n) < 0.1, names.index("bmi")] = np.nan
    z = (x[:, names.index("age")] - 80) / 20 + 0.5 * (
        x[:, names.index("avg_glucose_level")] - 80
    ) / 20
    y = (generator.random(n) < 1 / (1 + np.exp(2 - 2 * z))).astype(np.float32)
    patients = [f"p{i:04d}" for i in range(n)]
    return Rows(x=x, y=y, part=parts_of(patients, "made-up"))


@pytest.fixture(scope="session")
def stroke_rows(stroke_csv: Path, study: Study) -> Rows:
    """The real stroke table, without parts."""
    import pandas as pd

    from tasks.model.raw import raw_to_features

    frame = pd.read_csv(stroke_csv, dtype=str, keep_default_na=False)
    x = raw_to_features(frame, study)
    y = (frame["stroke"] == "1").to_numpy().astype(np.float32)
    return Rows(x=x, y=y, part=np.full(len(y), PARTS.index("test"), np.int8))
