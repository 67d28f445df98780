"""Step ``collect``: the study's columns of a hospital's raw table into its bronze Delta table.

Every value is kept as text, as received, with its place in the source, so that whatever comes
later can be traced back and done again. What is wrong with the table as a whole is found before a
row is written; what is wrong with single rows is for ``validate`` to judge.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from tasks.data.csv_table import find_columns, inspect_csv
from tasks.data.database import open_database
from tasks.data.fetch import local_copy, public_name
from tasks.data.rules import check_names
from tasks.data.sheet import open_sheet
from tasks.data.source_rows import column_rows, csv_rows, open_columns
from tasks.errors import DataError
from tasks.lake.tables import overwrite
from tasks.run.plan import hospital_source
from tasks.run.step import Context, Result
from tasks.s3 import is_s3


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
    address, source_format = _source(context)
    name = public_name(address)
    owner = f"hospital {hospital}"
    where = f"{owner}, {name}"
    counted: int | None = None
    with (
        tempfile.TemporaryDirectory(prefix="fedrisk-collect-") as temporary,
        contextlib.ExitStack() as opened,
    ):
        folder = Path(temporary)
        if source_format != "sql" and (source_format != "delta" or not is_s3(address)):
            address = str(local_copy(address, folder, where))
        if source_format == "csv":
            table = inspect_csv(Path(address), study, where, hospital)
            fields, columns, counted = table.fields, table.columns, table.rows
            rows = csv_rows(table, study.source)
        else:
            if source_format == "sql":
                found = opened.enter_context(open_database(address, study.source, where))
            elif source_format == "xlsx":
                found = open_sheet(Path(address), study.source, where)
            else:
                found = open_columns(address, source_format, context.settings, owner, where, folder)
            fields = list(found.schema.names)
            columns = find_columns(fields, study, where, hospital)
            rows = column_rows(found, columns, where)
        bronze = overwrite(
            rows,
            context.settings.table(hospital, study.name, "bronze"),
            {"run": context.run.run, "step": "collect"},
            owner,
        )
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


def _source(context: Context) -> tuple[str, str]:
    """Where the hospital's rows are and in which format."""
    study = context.study
    if study.source.kind == "own":
        return hospital_source(context.plan, context.own), study.source.format
    dealt = context.run.read("deal").files.get(context.own)
    if dealt is None:
        raise DataError(
            f"run {context.run.run}: step deal left no table for hospital {context.own}."
        )
    path = context.run.path / dealt
    return str(path), "parquet" if path.suffix == ".parquet" else "csv"
