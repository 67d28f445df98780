"""The one Spark session of a process, tuned for a hospital's small tables.

A hospital's table has thousands of rows, so start-up and planning cost more than the work: one
shuffle partition, the client compiler only, the serial collector, jars on the class path and an
archive of loaded classes reduce CPU time to a quarter of the untuned. Large tables get partitions
by their rows (``tune``).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import SettingsError
from tasks.lake.jvm.class_archive import archive_for
from tasks.lake.jvm.find_java import find_java
from tasks.lake.jvm.jars import ensure_jars, ensure_s3_jars
from tasks.lake.jvm.options import java_environment
from tasks.lake.s3 import s3a_configuration, wait_for_store
from tasks.s3 import is_s3
from tasks.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

S3_READY = "spark.delta.logStore.s3a.impl"
"""Set in a session that has S3A's jars."""
SUBMITTED = "PYSPARK_GATEWAY_PORT"
"""Set by ``spark-submit``, which has started the JVM and says what works where."""
_SILENT = {"spark.log.level": "OFF", "spark.executor.syncLogLevel.enabled": "true"}
"""Where ``log4j2.properties`` does not reach: a rejected write's error, which the step reports
without it, has values of a row."""
PARTITION_ROWS = 500_000
"""Rows per shuffle partition; below it, one partition is fastest."""

_lock = threading.Lock()
_open: list[SparkSession] = []


def java_options(archive: Path | None, *, dump: Path | None = None) -> str:
    """Options of Spark's JVM.

    Args:
        archive: Archive of loaded classes to map, if there is one.
        dump: Where to write such an archive when the JVM exits.
    """
    options = [
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        f"-Dlog4j2.configurationFile={(Path(__file__).parent / 'log4j2.properties').as_uri()}",
        "-Djava.net.preferIPv4Stack=true",
    ]
    if dump is not None:
        options += [f"-XX:ArchiveClassesAtExit={dump}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"]
    elif archive is not None:
        options += [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto", "-Xlog:cds=off"]
        options += ["-Xlog:class+path=off", "-Xlog:cds+dynamic=off"]
    return " ".join(options)


def spark_configuration(settings: Settings, jars: Sequence[Path], options: str) -> dict[str, str]:
    """Spark's configuration for one step that starts its own JVM.

    Args:
        settings: Master and memory.
        jars: Folders of Delta's jars and, for a step that uses S3, of S3A's.
        options: Options of the JVM.
    """
    if settings.spark_master.startswith("local"):
        where = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            # The executor is in the driver's own process. On an overloaded machine Spark would
            # declare it dead after two minutes, and end the JVM after sixty heartbeats without an
            # answer.
            "spark.executor.heartbeatInterval": "10min",
            "spark.network.timeout": "1h",
        }
    else:
        # A cluster's workers get the jars from the driver.
        files = [str(file) for folder in jars for file in sorted(folder.glob("*.jar"))]
        where = {"spark.jars": ",".join(files), "spark.executor.memory": settings.engine_memory}
        where |= _SILENT
    return {
        "spark.master": settings.spark_master,
        "spark.driver.memory": settings.engine_memory,
        "spark.driver.extraClassPath": os.pathsep.join(f"{folder}/*" for folder in jars),
        "spark.driver.extraJavaOptions": options,
        **where,
        **table_configuration(s3=len(jars) > 1),
    }


def table_configuration(*, s3: bool) -> dict[str, str]:
    """What the steps' tables need of any Spark.

    Args:
        s3: Whether a table is at ``s3a://``.
    """
    return {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # An empty table that replaces an empty one needs a version for its manifest.
        "spark.databricks.delta.skipRecordingEmptyCommits": "false",
        # Columns of a study may differ in case only, and Airflow's machines in time zone.
        "spark.sql.caseSensitive": "true",
        "spark.sql.session.timeZone": "UTC",
        # A constraint that deltalake wrote has names in double quotes.
        "spark.sql.ansi.enabled": "true",
        "spark.sql.ansi.doubleQuotedIdentifiers": "true",
        # One partition for a file of ordinary size, so that rows keep their order.
        "spark.sql.files.minPartitionNum": "1",
        "spark.sql.warehouse.dir": str(Path(tempfile.gettempdir()) / "fedrisk-no-warehouse"),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        **(s3a_configuration() if s3 else {}),
    }


def spark_session(settings: Settings, *addresses: str, owner: str = "") -> SparkSession:
    """Return this process's Spark session; the first call starts it.

    Under ``spark-submit`` that has started the JVM and says master, memory and jars. Else the JVM
    ends with the process: ``close_session`` stops it at a normal exit, and its input pipe closes
    when the process is killed.

    Args:
        settings: Java, jars, lake, Spark's master and memory.
        addresses: Sources to read besides the lake; ``s3a://`` needs further jars, for which a
            session without them is restarted.
        owner: The owner of this process's key, for messages.

    Raises:
        FedriskError: There is no Java, jars could not be fetched, the store does not answer, or
            ``spark-submit`` cannot give another session.
    """
    s3 = is_s3(settings.lake) or any(map(is_s3, addresses))
    with _lock:
        if _open and (not s3 or _open[0].conf.get(S3_READY, "")):
            return _open[0]
        if _open:
            if SUBMITTED in os.environ:
                raise SettingsError(
                    f"{owner or 'fedrisk'}: this process of spark-submit has begun without S3A and "
                    "now needs it. Submit each step by itself."
                )
            end_jvm(_open.pop(), deadline=20)
        if s3:
            wait_for_store()
        if SUBMITTED in os.environ:
            session = _session({**table_configuration(s3=s3), **_SILENT}, owner)
        else:
            java = find_java(settings)
            jars = [ensure_jars(settings.home, java)]
            if s3:
                jars.append(ensure_s3_jars(settings.home, java))
            options = java_options(archive_for(settings.home, java, *jars))
            session = start(spark_configuration(settings, jars, options), java, owner)
        _open.append(session)
        atexit.register(close_session)
        return session


def start(configuration: dict[str, str], java: Path, owner: str = "") -> SparkSession:
    """Start a JVM with a Spark session.

    Args:
        configuration: Spark's configuration.
        java: The home of Java.
        owner: The owner of this process's key.
    """
    # PySpark reads these variables from this process's environment; nothing else here may.
    before = dict(os.environ)
    os.environ.update(
        java_environment(java, Path(tempfile.gettempdir()) / f"fedrisk-java-{os.getuid()}")
    )
    try:
        return _session(configuration, owner)
    finally:
        for name in ("JAVA_HOME", "JDK_JAVA_OPTIONS"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _session(configuration: dict[str, str], owner: str) -> SparkSession:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(f"fedrisk {owner}".strip())
    for key, value in configuration.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def tune(spark: SparkSession, rows: int) -> None:
    """Set the number of shuffle partitions for a table of ``rows`` rows."""
    spark.conf.set("spark.sql.shuffle.partitions", str(max(1, -(-rows // PARTITION_ROWS))))


def close_session() -> None:
    """Stop this process's session, if any, and its JVM, within 20 s."""
    with _lock:
        if not _open:
            return
        session = _open.pop()
        atexit.unregister(close_session)
        end_jvm(session, deadline=20)


def end_jvm(session: SparkSession, deadline: float) -> None:
    """Stop a session and wait until its JVM has ended.

    Args:
        session: The session.
        deadline: Seconds after which the JVM is killed.
    """
    from pyspark import SparkContext

    gateway = SparkContext._gateway
    with contextlib.suppress(Exception):
        session.stop()
    if gateway is None:
        return
    process: subprocess.Popen[bytes] | None = getattr(gateway, "proc", None)
    with contextlib.suppress(Exception):
        gateway.shutdown()
    SparkContext._gateway = None
    SparkContext._jvm = None
    if process is None:
        return
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(timeout=deadline)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=5)
