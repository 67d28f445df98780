"""Read a hospital's gold table as arrays, without a Java runtime.

Training and scoring need a matrix and nothing of Spark, and a process that starts no Java machine
starts in a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.s3 import s3_address, store_error, store_options
from tasks.study import Study

if TYPE_CHECKING:
    from deltalake import QueryBuilder

PARTS = ("train", "validation", "test")
Empty = Callable[[tuple[int, int]], NDArray[np.float64]]
COMPARED = 1 << 20
"""Ids that are compared at a time."""
COLUMNS = 4
"""Columns that are put in order at a time."""
WIDEST = 256
"""Bytes up to which ids are kept in an array of one width."""


@dataclass(frozen=True)
class Rows:
    """Rows of gold tables.

    Attributes:
        x: Features, float64 of shape (n, d), in the order of ``study.features`` and in their
            units; NaN where a numeric feature is missing.
        y: Labels, float32 of shape (n,), 0 or 1.
        part: Place in ``PARTS`` of each row's part, int8 of shape (n,).
    """

    x: NDArray[np.float64]
    y: NDArray[np.float32]
    part: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.y)

    def of(self, part: str) -> Rows:
        """The rows of one part; a view where they lie together, as in one hospital's table.

        Args:
            part: ``train``, ``validation`` or ``test``.

        Raises:
            ValueError: There is no such part.
        """
        if part not in PARTS:
            raise ValueError(f"no part {part!r}; the parts are {', '.join(PARTS)}")
        index: Any = np.flatnonzero(self.part == PARTS.index(part))
        if len(index) and index[-1] - index[0] + 1 == len(index):
            index = slice(int(index[0]), int(index[-1]) + 1)
        return Rows(self.x[index], self.y[index], self.part[index])


def concatenate(pieces: list[Rows]) -> Rows:
    """Put rows of several hospitals under one another, in the given order.

    Args:
        pieces: At least one.
    """
    return Rows(
        x=np.concatenate([piece.x for piece in pieces]),
        y=np.concatenate([piece.y for piece in pieces]),
        part=np.concatenate([piece.part for piece in pieces]),
    )


def load_rows(
    uri: str,
    study: Study,
    version: int | None = None,
    parts: tuple[str, ...] = PARTS,
    empty: Empty = np.empty,
) -> Rows:
    """Read a gold table, in the order of its parts and, within each, of the patients' ids.

    Args:
        uri: A path, ``file://``, ``s3://`` or ``s3a://`` URI. Access to S3 comes from the usual
            ``AWS_*`` variables.
        study: Whose features the table must hold.
        version: The table's version; the newest by default.
        parts: The parts to read. Training names its own, so that test rows are never in memory.
        empty: Makes the array of features, float64 of shape (n, d), for a caller who keeps it
            where other processes see it.

    Raises:
        DataError: There is no such table or version, its columns are not the study's, or a label,
            part or feature is not what a gold table may hold.
    """
    names = [feature.name for feature in study.features]
    places = {name: place for place, name in enumerate(PARTS)}
    # What is left out is named, not what is read: a part that no step writes shows up.
    unread = ", ".join(f"'{part}'" for part in PARTS if part not in parts)
    where = f"where part not in ({unread}) or part is null" if unread else ""
    numbers = ", ".join(
        f"coalesce(cast({quoted} as double), cast('NaN' as double)) as {quoted}"
        for quoted in map(_quoted, ["label", *names])
    )
    with _translated(uri, version):
        gold = _opened(uri, version, study, names)
        [counted] = gold.execute(f"select count(*) as n from gold {where}")
        rows = int(counted.column("n").to_numpy()[0])
        # One array from the start: pieces to be put together would be a second copy of the table.
        x, y, part = empty((rows, len(names))), np.empty(rows), np.empty(rows, np.int8)
        ids, nameless, start = [np.empty(0, "S1")], 0, 0
        for batch in gold.execute(f"select patient, part, {numbers} from gold {where}"):
            some = slice(start, start := start + batch.num_rows)
            patients = batch.column("patient").to_pylist()
            nameless += patients.count(None)
            ids.append(_bytes(patients))
            part[some] = [places.get(each, -1) for each in batch.column("part").to_pylist()]
            y[some] = batch.column("label").to_numpy()
            for place, name in enumerate(names):
                x[some, place] = batch.column(name).to_numpy()
    unknown = int((part < 0).sum())
    if unknown:
        raise DataError(f"{uri}: column part is none of {', '.join(PARTS)} in {unknown} rows.")
    patient = np.concatenate(ids)
    del ids
    order = np.argsort(patient, kind="stable")
    if nameless or _has_twice(patient, order):
        raise DataError(f"{uri}: column patient holds nulls or an id twice.")
    del patient
    if not np.isin(y, (0.0, 1.0)).all():
        raise DataError(f"{uri}: column label holds something else than 0 and 1.")
    for values, feature in zip(x.T, study.features, strict=True):
        if feature.kind == "numeric":
            faults = int(np.isinf(values).sum())
        else:
            faults = int((~np.isin(values, (0.0, 1.0))).sum())
        if faults:
            expected = "finite or null" if feature.kind == "numeric" else "0 or 1"
            raise DataError(
                f"{uri}: column {feature.name} must be {expected} and is not in {faults} rows."
            )
    order = order[np.argsort(part[order], kind="stable")]
    for start in range(0, len(names), COLUMNS):
        some = slice(start, start + COLUMNS)
        x[:, some] = x[order, some]
    return Rows(x=x, y=y[order].astype(np.float32), part=part[order])


def _bytes(patients: list[str | None]) -> NDArray[Any]:
    """Ids as UTF-8, which has the order of the texts and needs no object a row."""
    ids = [(each or "").encode() for each in patients]
    return np.array(ids, object if max(map(len, ids), default=0) > WIDEST else np.bytes_)


def _has_twice(ids: NDArray[Any], order: NDArray[np.int64]) -> bool:
    pairs = len(order) - 1
    starts = ((start, min(start + COMPARED, pairs)) for start in range(0, pairs, COMPARED))
    return any((ids[order[a:b]] == ids[order[a + 1 : b + 1]]).any() for a, b in starts)


def _opened(uri: str, version: int | None, study: Study, names: list[str]) -> QueryBuilder:
    """The table as ``gold`` of Delta's own engine: pyarrow's would import pandas for a second."""
    from deltalake import DeltaTable, QueryBuilder

    address = s3_address(uri)
    table = DeltaTable(address, version=version, storage_options=store_options(address))
    found = {field.name for field in table.schema().fields}
    wanted = {"patient", "part", "label", *names}
    if found != wanted:
        raise DataError(
            f"{uri}: the gold table is not of study {study.name} as it stands now (lacks "
            f"{sorted(wanted - found) or 'nothing'}, has {sorted(found - wanted) or 'nothing'} too "
            "much). Run the step features again."
        )
    return QueryBuilder().register("gold", table)


@contextmanager
def _translated(uri: str, version: int | None) -> Iterator[None]:
    from deltalake.exceptions import DeltaError

    try:
        yield
    except Exception as error:
        # What the engine meets in a damaged file, or in a store, has no type of its own.
        if not isinstance(error, DeltaError | OSError) and type(error) is not Exception:
            raise
        failure = store_error(str(error), uri, "this step")
        if failure is not None:
            raise failure from None
        at = "" if version is None else f" at version {version}"
        if type(error) is Exception:
            raise DataError(
                f"{uri}: a file of the gold table{at} is damaged or gone. Run the step features "
                "again in a new run."
            ) from error
        raise DataError(
            f"{uri}: no gold table{at} can be read here ({type(error).__name__}). Run the step "
            "features first, or look at the settings of the lake."
        ) from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
