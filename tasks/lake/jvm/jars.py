"""Delta's and S3A's jars, fetched once by Spark's own resolver and then read from a folder.

A session that resolves ``spark.jars.packages`` every time starts in 13-22 s; with the jars on the
driver's class path it starts in 3-4 s and needs no network. Libraries that Spark's distribution
contains are not fetched. For S3 that leaves 10 MB: the AWS SDK's modules that hadoop-aws calls,
instead of the bundle of all of them (650 MB; docs/adr/0008).
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
from tasks.lake.jvm.options import java_environment

log = logging.getLogger(__name__)

FETCH_DEADLINE = 300.0
"""Seconds to fetch the jars."""
HADOOP = "3.5.0"
"""The Hadoop version of the installed PySpark; hadoop-aws must have the same."""
SDK = "2.35.4"
"""The AWS SDK that this hadoop-aws was built with (its parent's ``aws-java-sdk-v2.version``)."""
ACCELERATOR = "1.3.1"
"""The reader that hadoop-aws was built with: its request log uses a class of it."""
SPARK_HAS = (
    "com.fasterxml.jackson.core",
    "commons-codec",
    "commons-logging",
    "io.netty",
    "org.apache.httpcomponents",
    "org.slf4j",
)
"""Groups of the SDK's dependencies that Spark's distribution contains."""

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
    session.sql(f"ADD JAR ivy://{coordinate}")
session.stop()
"""


def coordinates() -> list[str]:
    """Maven coordinates of Delta's jars for the installed PySpark and delta-spark."""
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
    """The cache folder that all checkouts and runs of this user share.

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
    """Folder of the jars of the installed versions, whether or not it exists."""
    spark = importlib.metadata.version("pyspark")
    delta = importlib.metadata.version("delta-spark")
    return cache_folder(home) / f"jars-spark-{spark}-delta-{delta}"


def s3_coordinates() -> list[str]:
    """Maven coordinates of S3A's jars for ``ADD JAR ivy://``.

    hadoop-aws is fetched without its dependencies, which include the bundle. The transfer manager
    includes the S3 client with both HTTP clients; ``sts`` exchanges a pod's web identity for a key.
    """
    without = "transitive=true&exclude=" + ",".join(f"{group}:*" for group in SPARK_HAS)
    modules = ("s3-transfer-manager", "sts")
    return [
        f"org.apache.hadoop:hadoop-aws:{HADOOP}?transitive=false",
        "software.amazon.s3.analyticsaccelerator:analyticsaccelerator-s3:"
        f"{ACCELERATOR}?transitive=false",
        *(f"software.amazon.awssdk:{name}:{SDK}?{without}" for name in modules),
    ]


def s3_jars_folder(home: Path) -> Path:
    """Folder of S3A's jars, whether or not it exists."""
    return cache_folder(home) / f"jars-hadoop-aws-{HADOOP}-sdk-{SDK}"


def ensure_jars(home: Path, java: Path) -> Path:
    """Return the folder with Delta's jars, after fetching them if they are missing.

    Ivy's settings work as in Spark: ``SPARK_JARS_IVYSETTINGS`` names a settings file; without one,
    the local Maven repository and Maven Central are used (``DEFAULT_ARTIFACT_REPOSITORY`` replaces
    the latter).

    Args:
        home: The home folder of this installation.
        java: The home of the Java that fetches.

    Raises:
        FederationError: They could not be fetched: no network, or the deadline has passed.
        SettingsError: PySpark or delta-spark is not installed.
    """
    _need_spark()
    asked = [f"{name}?transitive=false" for name in coordinates()]
    return _ensure("Delta's jars", jars_folder(home), asked, java)


def ensure_s3_jars(home: Path, java: Path) -> Path:
    """Return the folder with S3A's jars, after fetching them if they are missing.

    Args:
        home: The home folder of this installation.
        java: The home of the Java that fetches.

    Raises:
        FederationError: They could not be fetched: no network, or the deadline has passed.
        SettingsError: PySpark is not installed, or its Hadoop version is not that of these jars.
    """
    spark = _need_spark()
    if not (spark / "jars" / f"hadoop-client-api-{HADOOP}.jar").is_file():
        raise SettingsError(
            f"the installed PySpark has another version of Hadoop than {HADOOP}, which the jars "
            "for s3a:// need. Install the version of PySpark that fedrisk requires."
        )
    return _ensure("S3A's jars", s3_jars_folder(home), s3_coordinates(), java)


def _need_spark() -> Path:
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise SettingsError("PySpark is not installed here: install fedrisk with its extra spark.")
    return Path(found.origin).parent


def _ensure(what: str, folder: Path, asked: list[str], java: Path) -> Path:
    """Fetch jars into a folder, atomically."""
    if folder.is_dir():
        return folder
    log.info("fetching %s into %s (once)", what, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    advice = "Check the network, or name an Ivy settings file with SPARK_JARS_IVYSETTINGS, and"
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".jars-") as temporary:
        ivy = Path(temporary) / "ivy"
        settings = os.environ.get("SPARK_JARS_IVYSETTINGS", "")
        command = [sys.executable, "-c", _FETCH, str(ivy), settings, *asked]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=FETCH_DEADLINE,
                check=False,
                env=java_environment(java, Path(temporary), network=True),
            )
        except subprocess.TimeoutExpired:
            raise FederationError(
                f"{what} could not be fetched within {FETCH_DEADLINE:.0f} s. {advice} retry."
            ) from None
        found = sorted((ivy / "jars").glob("*.jar")) if ivy.is_dir() else []
        names = {jar.name for jar in found}
        lacking = [name for name in map(_file_name, asked) if name not in names]
        if done.returncode != 0 or lacking:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise FederationError(
                f"{what} could not be fetched ({len(asked) - len(lacking)} of {len(asked)} came): "
                f"{last} {advice} retry."
            )
        ready = Path(temporary) / "ready"
        ready.mkdir()
        for jar in found:
            shutil.move(jar, ready / jar.name)
        try:
            ready.rename(folder)
        except OSError:
            # Another process was faster; its folder has the same jars.
            if not folder.is_dir():
                raise
    return folder


def _file_name(asked: str) -> str:
    """Ivy's file name for the jar of ``group:name:version?options``."""
    group, name, version = asked.partition("?")[0].split(":")
    return f"{group}_{name}-{version}.jar"
