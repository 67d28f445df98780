"""A hospital's training and validation rows, read from its gold table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.federation.hospital.config import HospitalConfig, check_approved
from tasks.model.rows import Empty, Rows, load_rows


@dataclass(frozen=True)
class TrainingRows:
    """A hospital's training and validation rows; test rows are not read.

    Attributes:
        x: Training features, float64 (n, d), NaN where missing.
        y: Training labels, float32 (n,).
        validation_x: Validation features.
        validation_y: Validation labels.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float32]
    validation_x: NDArray[np.float64]
    validation_y: NDArray[np.float32]


def read_training_rows(config: HospitalConfig, empty: Empty = np.empty) -> TrainingRows:
    """Read the rows that training may use.

    Args:
        config: What the hospital's process is configured with.
        empty: See ``load_rows``.

    Raises:
        DataError: The table cannot be read, or has no training rows.
        NotApproved: The hospital has not approved the study.
    """
    check_approved(config)
    parts = ("train", "validation")
    rows: Rows = load_rows(config.gold, config.study, config.version, parts, empty)
    train, validation = rows.of("train"), rows.of("validation")
    if len(train) == 0:
        raise DataError("the gold table has no training rows; look at the step features.")
    return TrainingRows(train.x, train.y, validation.x, validation.y)
