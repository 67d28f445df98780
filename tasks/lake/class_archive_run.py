"""Write and read a minimal Delta table while the JVM records the classes that it loads.

A separate program (``python -m`` this module ``JAVA ARCHIVE JARS...``), because a JVM writes the
archive when it exits.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

from tasks.lake.session import java_options, spark_configuration, start
from tasks.settings import Settings


def record_classes(java: Path, archive: Path, jars: list[Path]) -> None:
    """Load the classes that a step loads, then exit the JVM so that it writes the archive.

    Args:
        java: The home of Java.
        archive: The file to write.
        jars: Folders of the jars.
    """
    settings = Settings.from_environment()
    configuration = spark_configuration(settings, jars, java_options(None, dump=archive))
    spark = start(configuration, java)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "rows.csv"
        source.write_text("id,x,y\n" + "\n".join(f"{i},{i % 7},{i % 2}" for i in range(50)) + "\n")
        rows = spark.read.csv(str(source), schema="id string, x string, y string", header=True)
        typed = rows.selectExpr(
            "id", "try_cast(x as double) x", "try_cast(y as int) y", "sha2(id, 256) h"
        )
        table = str(Path(temporary) / "table")
        for frame in (typed.dropDuplicates(["id"]), typed.where("x > 1")):
            frame.write.format("delta").mode("overwrite").save(table)
        read = spark.read.format("delta").option("versionAsOf", 1).load(table)
        read.groupBy("y").count().collect()
        read.toPandas()
    with contextlib.suppress(Exception):
        spark._jvm.System.exit(0)


if __name__ == "__main__":
    record_classes(Path(sys.argv[1]), Path(sys.argv[2]), [Path(jars) for jars in sys.argv[3:]])
