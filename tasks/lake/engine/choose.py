"""Which engine a step takes: by the study's or this machine's setting, else by the table's rows."""

from __future__ import annotations

from importlib.util import find_spec

from tasks.errors import SettingsError
from tasks.lake.engine.engine import Engine
from tasks.lake.engine.local import LocalEngine
from tasks.settings import Settings
from tasks.study import Study


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
    if find_spec("pyspark") is None:
        raise SettingsError(
            f"{owner}: {rows} rows need the engine spark, and PySpark is not installed here. "
            "Install fedrisk with its extra spark, use the image with Spark, or set "
            "FEDRISK_ENGINE=local."
        )
    from tasks.lake.engine.spark import SparkEngine

    return SparkEngine(settings, owner, rows)
