"""Step ``collect``: a hospital's raw table into its bronze Delta table, as received.

Every value is kept as text with its place in the source, so that whatever comes later can be
traced back and done again. What is wrong with the table as a whole is found before a row is
written; what is wrong with single rows is for ``validate`` to judge.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data.csv_table import CsvTable, check_fields, inspect_csv
from tasks.data.fetch import local_copy, public_name
from tasks.data.rules import check_names
from tasks.data.values import quoted
from tasks.errors import DataError
from tasks.lake.s3 import s3a_address
from tasks.lake.session import spark_session, tune
from tasks.lake.tables import local_path, overwrite, spark_errors, store_failure
from tasks.run.plan import hospital_source
from tasks.run.step import Context, Result
from tasks.study import Study

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


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
    where = f"hospital {hospital}, {name}"
    with tempfile.TemporaryDirectory(prefix="fedrisk-collect-") as temporary:
        if source_format == "csv":
            path = local_copy(address, Path(temporary), context.settings, where)
            table = inspect_csv(path, study, where, hospital)
            spark = spark_session(context.settings, owner=f"hospital {hospital}")
            tune(spark, table.rows)
            frame = _read_csv(spark, table, study)
            fields = table.fields
        else:
            spark = spark_session(context.settings, address, owner=f"hospital {hospital}")
            frame = _read_columns(spark, address, source_format, Path(temporary), context, where)
            fields = frame.columns
            check_fields(fields, study, where, hospital)
        about = {"run": context.run.run, "step": "collect"}
        bronze = overwrite(
            _with_place(frame, fields),
            context.settings.table(hospital, study.name, "bronze"),
            about,
        )
    if bronze.rows == 0:
        raise DataError(f"{where}: the table has no row. Expected a row a patient.")
    if source_format == "csv" and bronze.rows != table.rows:
        raise DataError(
            f"{where}: {table.rows} rows were counted and {bronze.rows} read. Check the quotes."
        )
    return Result(
        tables={"bronze": bronze},
        figures={"rows": bronze.rows, "columns": len(fields), "source": name},
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


def _read_csv(spark: SparkSession, table: CsvTable, study: Study) -> DataFrame:
    from pyspark.sql.types import StringType, StructField, StructType

    return spark.read.csv(
        str(table.path),
        schema=StructType([StructField(name, StringType()) for name in table.fields]),
        header=study.source.header,
        sep=study.source.delimiter,
        encoding=study.source.encoding,
        quote='"',
        escape='"',
        multiLine=table.multiline,
        mode="FAILFAST",
        # As received: no trimming, and an empty string is what nothing between delimiters is.
        ignoreLeadingWhiteSpace=False,
        ignoreTrailingWhiteSpace=False,
        nullValue="",
        emptyValue="",
    )


def _read_columns(
    spark: SparkSession, address: str, kind: str, folder: Path, context: Context, where: str
) -> DataFrame:
    """Read Parquet or Delta, all columns as text; true and false become 1 and 0."""
    if address.startswith(("https://", "http://")):
        address = str(local_copy(address, folder, context.settings, where))
    path = local_path(address)
    if path is not None and not path.exists():
        raise DataError(f"{where}: no such file or folder. Check --source and the study's paths.")
    try:
        raw = spark.read.format(kind).load(s3a_address(address))
        kinds = dict(raw.dtypes)
    except spark_errors() as error:
        failure = store_failure(error, address, spark)
        if failure is not None:
            raise failure from None
        raise DataError(
            f"{where}: not readable as {kind} ({type(error).__name__}). Check source.format."
        ) from None
    nested = [name for name, of in kinds.items() if of.startswith(("array", "map", "struct"))]
    if nested:
        raise DataError(f"{where}: column {', '.join(nested)} is nested. Expected plain values.")
    texts = [
        f"cast(cast({quoted(n)} AS int) AS string) AS {quoted(n)}"
        if of == "boolean"
        else f"cast({quoted(n)} AS string) AS {quoted(n)}"
        for n, of in kinds.items()
    ]
    return raw.selectExpr(*texts)


def _with_place(frame: DataFrame, fields: list[str]) -> DataFrame:
    """Add ``_row``: the 1-based place in the source, gapless over all partitions."""
    from pyspark.sql import functions as F  # noqa: N812

    marked: Any = frame.withColumn("_row", F.monotonically_increasing_id())
    partitions = frame._jdf.rdd().getNumPartitions()
    place: Any = F.col("_row")
    if partitions > 1:
        counts = marked.groupBy(F.expr("_row >> 33").alias("p")).count().collect()
        before, offsets = 0, {}
        for row in sorted(counts, key=lambda row: row["p"]):
            offsets[row["p"]] = before
            before += row["count"]
        pairs = ", ".join(f"{part}L, {offset}L" for part, offset in offsets.items())
        place = F.expr(f"element_at(map({pairs}), _row >> 33) + (_row & 8589934591L)")
    texts = [F.col(quoted(name)) for name in fields]
    return marked.select(*texts, (place + 1).cast("long").alias("_row"))
