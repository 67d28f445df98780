"""Read a hospital's gold table as arrays, without a Java runtime.

Training and scoring need a matrix and nothing of Spark, and a process that starts no Java machine
starts in a tenth of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.s3 import s3_address, store_error, store_options
from tasks.study import Study

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Rows:
    """Rows of a gold table, in the order of the patients' ids.

    Attributes:
        patients: The ids, sorted.
        x: Features, float64 of shape (n, d), in the order of ``study.features`` and in their
            units; NaN where a numeric feature is missing.
        y: Labels, float32 of shape (n,), 0 or 1.
        part: ``train``, ``validation`` or ``test`` of each row, shape (n,).
    """

    patients: list[str]
    x: NDArray[np.float64]
    y: NDArray[np.float32]
    part: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.patients)

    def of(self, part: str) -> Rows:
        """The rows of one part.

        Args:
            part: ``train``, ``validation`` or ``test``.

        Raises:
            ValueError: There is no such part.
        """
        if part not in PARTS:
            raise ValueError(f"no part {part!r}; the parts are {', '.join(PARTS)}")
        return self.take(np.flatnonzero(self.part == part))

    def take(self, index: NDArray[np.int64]) -> Rows:
        """The rows at some places.

        Args:
            index: Places, shape (k,).
        """
        return Rows(
            patients=[self.patients[i] for i in index],
            x=self.x[index],
            y=self.y[index],
            part=self.part[index],
        )


def concatenate(pieces: list[Rows]) -> Rows:
    """Put rows of several hospitals under one another, in the given order.

    Args:
        pieces: At least one.
    """
    return Rows(
        patients=[patient for piece in pieces for patient in piece.patients],
        x=np.concatenate([piece.x for piece in pieces]),
        y=np.concatenate([piece.y for piece in pieces]),
        part=np.concatenate([piece.part for piece in pieces]),
    )


def load_rows(
    uri: str, study: Study, version: int | None = None, parts: tuple[str, ...] = PARTS
) -> Rows:
    """Read a gold table.

    Args:
        uri: A path, ``file://``, ``s3://`` or ``s3a://`` URI. Access to S3 comes from the usual
            ``AWS_*`` variables.
        study: Whose features the table must hold.
        version: The table's version; the newest by default.
        parts: The parts to read. Training names its own, so that test rows are never in memory.

    Raises:
        DataError: There is no such table or version, its columns are not the study's, or a label,
            part or feature is not what a gold table may hold.
    """
    names = [feature.name for feature in study.features]
    table = _read(uri, version, study, ["label", *names], parts)
    patients = table.column("patient").to_pylist()
    if any(patient is None for patient in patients) or len(set(patients)) != len(patients):
        raise DataError(f"{uri}: column patient holds nulls or an id twice.")
    order = np.array(sorted(range(len(patients)), key=patients.__getitem__), dtype=np.int64)
    label = _column(table, "label")
    if not np.isin(label, (0.0, 1.0)).all():
        raise DataError(f"{uri}: column label holds something else than 0 and 1.")
    part = np.array([str(value) for value in table.column("part").to_pylist()], dtype=np.str_)
    unknown = int((~np.isin(part, PARTS)).sum())
    if unknown:
        raise DataError(f"{uri}: column part is none of {', '.join(PARTS)} in {unknown} rows.")
    x = np.empty((len(patients), len(names)), dtype=np.float64)
    for place, feature in enumerate(study.features):
        x[:, place] = values = _column(table, feature.name)
        if feature.kind == "numeric":
            faults = int(np.isinf(values).sum())
        else:
            faults = int((~np.isin(values, (0.0, 1.0))).sum())
        if faults:
            expected = "finite or null" if feature.kind == "numeric" else "0 or 1"
            raise DataError(
                f"{uri}: column {feature.name} must be {expected} and is not in {faults} rows."
            )
    return Rows(
        patients=[patients[i] for i in order],
        x=x[order],
        y=label.astype(np.float32)[order],
        part=part[order],
    )


def _read(
    uri: str, version: int | None, study: Study, numbers: list[str], parts: tuple[str, ...]
) -> Any:
    """The table with its numbers as doubles, NaN for null.

    Read by Delta's own engine, for pyarrow's tables import pandas, which takes a second.
    """
    from deltalake import DeltaTable, QueryBuilder
    from deltalake.exceptions import DeltaError

    address = s3_address(uri)
    wanted = ["patient", "part", *numbers]
    try:
        table = DeltaTable(address, version=version, storage_options=store_options(address))
        found = [field.name for field in table.schema().fields]
        if sorted(found) == sorted(wanted):
            columns = ", ".join(
                f"coalesce(cast({quoted} as double), cast('NaN' as double)) as {quoted}"
                for quoted in map(_quoted, numbers)
            )
            # What is left out is named, not what is read: a part that no step writes shows up.
            unread = [f"'{part}'" for part in PARTS if part not in parts]
            kept = f"part not in ({', '.join(unread)}) or part is null"
            where = f" where {kept}" if unread else ""
            query = QueryBuilder().register("gold", table)
            return query.execute(f"select patient, part, {columns} from gold{where}").read_all()
    except (DeltaError, OSError) as error:
        failure = store_error(str(error), uri, "this step")
        if failure is not None:
            raise failure from None
        at = "" if version is None else f" at version {version}"
        raise DataError(
            f"{uri}: no gold table{at} can be read here ({type(error).__name__}). Run the step "
            "features first, or look at the settings of the lake."
        ) from error
    lacking = sorted(set(wanted) - set(found))
    extra = sorted(set(found) - set(wanted))
    raise DataError(
        f"{uri}: the gold table is not of study {study.name} as it stands now (lacks "
        f"{lacking or 'nothing'}, has {extra or 'nothing'} too much). Run the step features again."
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _column(table: Any, name: str) -> NDArray[np.float64]:
    return np.asarray(table.column(name).to_numpy(), dtype=np.float64)
