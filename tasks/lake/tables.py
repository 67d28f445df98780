"""Delta tables of a lake: defined, replaced in one commit, and described by their commits.

A write replaces the table's rows in one commit, so a step that runs again leaves the same rows
once, and a step that is killed leaves the previous version. Readers use the version of a manifest.
No message contains a value: the ``deltalake`` package shows rows that a constraint rejects.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import DataError, ExitCode, FedriskError
from tasks.run.manifest import TableVersion
from tasks.s3 import s3_address, store_error, store_options

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyarrow import RecordBatchReader

UNUSUAL = frozenset(" ,;{}()\n\t=.")
"""Characters that Delta allows in a column's name only with column mapping, which the
``deltalake`` package does not support, and the dot, which a constraint takes for a struct's."""
_NEWEST = 20
"""Commits that are read before all others are: the one in question is mostly the last."""


def lake_name(name: str) -> str:
    """The name of a source's column in bronze, where Delta allows no unusual characters."""
    return "".join("_" if character in UNUSUAL else character for character in name)


class TableBusy(FedriskError):  # noqa: N818  (names the state)
    """Another run wrote the same table at the same moment: retry."""

    exit_code = ExitCode.TRANSIENT


class NoTable(DataError):  # noqa: N818  (names the state)
    """There is no table at the address."""


class RowsLost(DataError):  # noqa: N818  (names the state)
    """What was handed to the writer failed before its end."""


@dataclass(frozen=True)
class Commit:
    """One commit of a Delta table.

    Attributes:
        version: The table's version after it.
        rows: Number of rows that it wrote, if recorded.
        about: Metadata from the writer (run, step, source and figures).
    """

    version: int
    rows: int | None
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Definition:
    """A table's columns and what each of its rows must meet.

    Attributes:
        columns: Delta's type and nullability by column, in order.
        constraint: SQL condition that both engines understand: names in backticks, numbers and
            texts in single quotes, no function.
        digest: Fingerprint; a table of another definition is replaced.
    """

    columns: dict[str, tuple[str, bool]]
    constraint: str
    digest: str


def local_path(uri: str) -> Path | None:
    """The path of a local URI, or None."""
    if uri.startswith("file:"):
        return Path("/" + uri.removeprefix("file:").lstrip("/"))
    return None if "://" in uri else Path(uri)


def _address(uri: str) -> str:
    path = local_path(uri)
    return s3_address(uri) if path is None else str(path)


def open_table(uri: str, owner: str, version: int | None = None) -> DeltaTable:
    """Open one version of a table, the newest by default.

    Args:
        uri: The table.
        owner: The owner of this process's key, for messages.
        version: The version.

    Raises:
        DataError: The table or the version is gone, or the store refuses the key.
        StoreUnavailable: The store does not answer.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    address = _address(uri)
    try:
        return DeltaTable(address, version=version, storage_options=store_options(address))
    except TableNotFoundError as error:
        raise store_error(str(error), uri, owner) or NoTable(f"{uri}: there is no table.") from None
    except (DeltaError, OSError) as error:
        raise table_error(str(error), uri, owner) from None


def overwrite(
    rows: RecordBatchReader,
    uri: str,
    about: dict[str, Any],
    owner: str,
    definition: Definition | None = None,
) -> TableVersion:
    """Replace a table's rows, and its schema with them, in one commit.

    Args:
        rows: The rows, in batches.
        uri: The table; created if absent.
        about: Metadata of the commit; run and step by convention. No values of rows.
        owner: The owner of this process's key, for messages.
        definition: The table's columns and constraint, which are then kept.

    Raises:
        DataError: A constraint of the table rejects a row, or the store refuses the key.
        TableBusy: Another writer committed first.
        StoreUnavailable: The store does not answer.
    """
    from deltalake import CommitProperties, write_deltalake
    from deltalake.exceptions import DeltaError

    address = _address(uri)
    token = uuid.uuid4().hex
    noted = {"userMetadata": json.dumps({**about, "token": token})}
    try:
        write_deltalake(
            address,
            rows,
            mode="overwrite",
            schema_mode=None if definition else "overwrite",
            storage_options=store_options(address),
            commit_properties=CommitProperties(custom_metadata=noted),
        )
    except (DeltaError, OSError) as error:
        raise table_error(str(error), uri, owner) from None
    return written(uri, token, owner)


def written(uri: str, token: str, owner: str) -> TableVersion:
    """The version of the commit that notes a token."""
    for commit in commits(uri, owner):
        if commit.about.get("token") == token:
            return TableVersion(uri=uri, version=commit.version, rows=commit.rows or 0)
    raise DataError(f"{uri}: the commit that was just written is not in the table's log.")


def define(uri: str, definition: Definition, owner: str) -> None:
    """Create an empty table with a constraint, unless the newest version has this definition.

    Args:
        uri: The table; an existing one is replaced, and its versions are kept.
        definition: Columns and constraint.
        owner: The owner of this process's key, for messages.

    Raises:
        DataError: The store refuses the key.
        StoreUnavailable: The store does not answer.
    """
    from deltalake import DeltaTable, Field, Schema
    from deltalake.exceptions import DeltaError
    from deltalake.schema import PrimitiveType

    newest = next(commits(uri, owner), None)
    if newest is not None and newest.about.get("definition") == definition.digest:
        return
    fields = [
        Field(name, PrimitiveType(kind), nullable=nullable)
        for name, (kind, nullable) in definition.columns.items()
    ]
    address = _address(uri)
    try:
        table = DeltaTable.create(
            address, Schema(fields), mode="overwrite", storage_options=store_options(address)
        )
        table.alter.add_constraint({"study": definition.constraint})
    except (DeltaError, OSError) as error:
        raise table_error(str(error), uri, owner) from None


def commits(uri: str, owner: str) -> Iterator[Commit]:
    """List a table's commits, newest first; empty where there is no table."""
    try:
        table = open_table(uri, owner)
    except NoTable:
        return
    for first, limit in ((0, _NEWEST), (_NEWEST, None)):
        for entry in table.history(limit)[first:]:
            metrics = entry.get("operationMetrics") or {}
            rows = metrics.get("num_added_rows", metrics.get("numOutputRows"))
            try:
                about = json.loads(entry.get("userMetadata") or "{}")
            except json.JSONDecodeError:
                about = {}
            yield Commit(entry["version"], None if rows is None else int(rows), about)


def table_error(text: str, uri: str, owner: str) -> FedriskError:
    """Translate the text of an exception, without the values that it contains."""
    found = store_error(text, uri, owner)
    if found is not None:
        return found
    if any(
        word in text
        for word in ("failed validation", "VIOLATE_CONSTRAINT", "NOT_NULL_CONSTRAINT", "Invariant")
    ):
        return DataError(
            f"{uri}: a constraint of the table rejects at least one row. The study's ranges or "
            "categories and the table's constraint differ; delete the table to rebuild it."
        )
    if ("Concurrent" in text and "Exception" in text) or "Failed to commit transaction" in text:
        return TableBusy(f"{uri}: another run wrote this table at the same moment. Retry.")
    if "://" in uri and not uri.startswith(("s3://", "s3a://", "file:")):
        return DataError(f"{uri}: this kind of address is not supported. Use a path or s3a://.")
    if "column-mapped" in text:
        return DataError(
            f"{uri}: an earlier version of fedrisk wrote this table with column mapping. Delete "
            "it: it is made again from the source."
        )
    if "Arrow error" in text or "External error" in text:
        # What was handed to the writer failed, and such a text may hold a value.
        return RowsLost(f"{uri}: the rows to write could not be read to their end.")
    first = (text.strip().splitlines() or [""])[0][:200]
    return DataError(f"{uri}: could not read or write the table ({first}).")
