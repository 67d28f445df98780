"""Delta's five jars, fetched once by Spark's own resolver and then read from a folder.

A session that resolves ``spark.jars.packages`` every time starts in 13-22 s; with the jars on the
driver's class path it starts in 3-4 s and needs no network. Delta's other dependencies are in
Spark's own distribution already, so they are not fetched a second time.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tasks.errors import FederationError, SettingsError
from tasks.lake.java_options import java_environment

log = logging.getLogger(__name__)

DEADLINE = 300.0
"""Seconds after which fetching the jars is given up."""

_FETCH = """
import sys
from pyspark.sql import SparkSession
spark = (
    SparkSession.builder.master("local[1]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.jars.ivy", sys.argv[1])
)
if sys.argv[2]:
    spark = spark.config("spark.jars.ivySettings", sys.argv[2])
session = spark.getOrCreate()
for coordinate in sys.argv[3:]:
    session.sql(f"ADD JAR ivy://{coordinate}?transitive=false")
session.stop()
"""


def coordinates() -> list[str]:
    """Maven coordinates of the jars that the installed PySpark and delta-spark belong to."""
    spark = ".".join(importlib.metadata.version("pyspark").split(".")[:2])
    delta = importlib.metadata.version("delta-spark")
    names = [
        f"delta-spark_{spark}_2.13",
        "delta-storage",
        "delta-kernel-api",
        "delta-kernel-defaults",
        "delta-kernel-unitycatalog",
    ]
    return [f"io.delta:{name}:{delta}" for name in names]


def cache_folder(home: Path) -> Path:
    """Where what all checkouts and runs of this user share is kept.

    Args:
        home: The home folder of this installation, used where the user has no cache folder.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(base) if base else Path.home() / ".cache"
        (cache / "fedrisk").mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return home / "cache"
    return cache / "fedrisk"


def jars_folder(home: Path) -> Path:
    """Folder of the jars of the installed versions, whether or not they are there."""
    spark = importlib.metadata.version("pyspark")
    delta = importlib.metadata.version("delta-spark")
    return cache_folder(home) / f"jars-spark-{spark}-delta-{delta}"


def ensure_jars(home: Path, java: Path) -> Path:
    """Return the folder with Delta's jars, after fetching them if they are not there.

    Ivy's settings are honoured as Spark does it: ``SPARK_JARS_IVYSETTINGS`` names a settings file;
    without one, the local Maven repository and Maven Central are asked
    (``DEFAULT_ARTIFACT_REPOSITORY`` names another in its place).

    Args:
        home: The home folder of this installation.
        java: The home of the Java that fetches.

    Raises:
        FederationError: They could not be fetched: no network, or the deadline has passed.
        SettingsError: PySpark or delta-spark is not installed.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise SettingsError("PySpark is not installed here: install fedrisk with its extra spark.")
    folder = jars_folder(home)
    if folder.is_dir():
        return folder
    log.info("fetching Delta's jars into %s (once)", folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".jars-") as temporary:
        ivy = Path(temporary) / "ivy"
        settings = os.environ.get("SPARK_JARS_IVYSETTINGS", "")
        command = [sys.executable, "-c", _FETCH, str(ivy), settings, *coordinates()]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
                env=java_environment(java, Path(temporary), network=True),
            )
        except subprocess.TimeoutExpired:
            raise FederationError(
                f"Delta's jars could not be fetched within {DEADLINE:.0f} s. Check the network, "
                "or name an Ivy settings file with SPARK_JARS_IVYSETTINGS, and retry."
            ) from None
        found = sorted((ivy / "jars").glob("io.delta_*.jar")) if ivy.is_dir() else []
        if done.returncode != 0 or len(found) != len(coordinates()):
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise FederationError(
                f"Delta's jars could not be fetched ({len(found)} of {len(coordinates())} came): "
                f"{last} Check the network, or name an Ivy settings file with "
                "SPARK_JARS_IVYSETTINGS, and retry."
            )
        ready = Path(temporary) / "ready"
        ready.mkdir()
        for jar in found:
            shutil.move(jar, ready / jar.name)
        try:
            ready.rename(folder)
        except OSError:
            # Another process was quicker; its folder holds the same jars.
            if not folder.is_dir():
                raise
    return folder
