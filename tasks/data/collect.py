"""Step ``collect``: the study's columns of a hospital's raw table into its bronze Delta table.

Every value is kept as text, as received, with its place in the source, so that whatever comes
later can be traced back and done again. What is wrong with the table as a whole is found before a
row is written; what is wrong with single rows is for ``validate`` to judge.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from tasks.data.columnar import open_columns
from tasks.data.csv_table import find_columns, inspect_csv
from tasks.data.fetch import local_copy, public_name
from tasks.data.rules import check_names
from tasks.data.source_rows import column_rows, csv_rows
from tasks.errors import DataError
from tasks.lake.tables import RowsLost, overwrite
from tasks.run.plan import hospital_source
from tasks.run.step import Context, Result
from tasks.s3 import is_s3
from tasks.study import Source


def collect(context: Context) -> Result:
    """Read the hospital's source and replace its bronze table.

    Args:
        context: The run and the hospital.

    Raises:
        DataError: The source is missing, empty, or not the table that the study describes.
        FedriskError: The source's server does not answer (retry).
    """
    hospital, study = context.own, context.study
    check_names(study)
    address, source = _source(context)
    name = public_name(address)
    owner = f"hospital {hospital}"
    where = f"{owner}, {name}"
    counted: int | None = None
    with (
        tempfile.TemporaryDirectory(prefix="fedrisk-collect-") as temporary,
        contextlib.ExitStack() as opened,
    ):
        folder = Path(temporary)
        if source.format != "sql" and (source.format != "delta" or not is_s3(address)):
            address = str(local_copy(address, folder, where))
        if source.format == "csv":
            table = inspect_csv(Path(address), study, where, hospital)
            fields, columns, counted = table.fields, table.columns, table.rows
            rows = csv_rows(table, source)
        else:
            found = opened.enter_context(
                open_columns(address, source, context.settings, owner, where, folder)
            )
            fields = list(found.schema.names)
            columns = find_columns(fields, study, where, hospital)
            rows = column_rows(found, columns, where)
        try:
            bronze = overwrite(
                rows,
                context.settings.table(hospital, study.name, "bronze"),
                {"run": context.run.run, "step": "collect"},
                owner,
            )
        except RowsLost:
            raise DataError(f"{where}: could not be read to its end. Is it whole?") from None
    if bronze.rows == 0:
        raise DataError(f"{where}: the table has no row. Expected a row a patient.")
    if counted is not None and bronze.rows != counted:
        raise DataError(
            f"{where}: {counted} rows were counted and {bronze.rows} read. Check the quotes."
        )
    return Result(
        tables={"bronze": bronze},
        figures={
            "rows": bronze.rows,
            "columns": len(fields),
            "ignored": len(fields) - len(columns),
            "source": name,
        },
    )


def _source(context: Context) -> tuple[str, Source]:
    """Where the hospital's rows are and how they are read."""
    source = context.study.source
    if source.kind == "own":
        return hospital_source(context.plan, context.own), source
    dealt = context.run.read("deal").files.get(context.own)
    if dealt is None:
        raise DataError(
            f"run {context.run.run}: step deal left no table for hospital {context.own}."
        )
    path = context.run.path / dealt
    written = "parquet" if path.suffix == ".parquet" else "csv"
    return str(path), source.model_copy(update={"format": written})
