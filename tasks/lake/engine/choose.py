"""Which engine a step takes: by the study's or this machine's setting, else by the table's rows."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from tasks.errors import SettingsError
from tasks.lake.engine.engine import Engine
from tasks.lake.engine.local import LocalEngine
from tasks.settings import Settings
from tasks.study import Study

if TYPE_CHECKING:
    from tasks.lake.engine.spark import SparkEngine


def engine_for(settings: Settings, study: Study, owner: str, rows: int) -> Engine:
    """Start the engine of one step.

    Args:
        settings: ``FEDRISK_ENGINE`` replaces the study's engine.
        study: Its engine, and the number of rows from which ``auto`` takes Spark.
        owner: The owner of this process's key, for messages.
        rows: Rows of the table.

    Raises:
        SettingsError: Spark is needed and not installed.
        FedriskError: Spark cannot start.
    """
    name = settings.engine or study.compute.engine
    if name == "auto":
        name = "spark" if rows > study.compute.spark_above_rows else "local"
    if name == "local":
        return LocalEngine(owner, settings.engine_memory)
    return spark_engine(settings, owner, rows)


def spark_engine(settings: Settings, owner: str, rows: int, *sources: str) -> SparkEngine:
    """Start Spark for a table.

    Args:
        settings: Spark's memory, cores and master.
        owner: The owner of this process's key, for messages.
        rows: Rows of the table; 0 where they are not known.
        sources: Addresses that Spark will read besides the lake.

    Raises:
        SettingsError: PySpark is not installed.
        FedriskError: Spark cannot start.
    """
    if find_spec("pyspark") is None:
        what = f"{rows} rows need" if rows else "this table needs"
        raise SettingsError(
            f"{owner}: {what} the engine spark, and PySpark is not installed here. Install fedrisk "
            "with its extra spark; steps in pods take the image fedrisk-spark where the study's "
            "compute.engine or FEDRISK_ENGINE is spark."
            + (" Or set FEDRISK_ENGINE=local." if rows else "")
        )
    from tasks.lake.engine.spark import SparkEngine

    return SparkEngine(settings, owner, rows, *sources)
