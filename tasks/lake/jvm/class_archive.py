"""An archive of the classes that Spark and Delta load, which a JVM maps instead of parsing them.

Java's application class-data sharing (JEP 350) saves 3 s at every step's start. The archive is
made once by a minimal write and read of a Delta table, for one Java and one set of jars; other
JVMs ignore it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tasks.lake.jvm.jars import cache_folder
from tasks.launch.process_tree import process_tree
from tasks.settings import Settings

log = logging.getLogger(__name__)

ARCHIVE_DEADLINE = 240.0
"""Seconds to make the archive; after them steps run without one."""


def archive_path(home: Path, java: Path, *jars: Path) -> Path:
    """Path of the archive for this Java, these jars and this installation of Spark."""
    spark = importlib.util.find_spec("pyspark")
    release = java / "release"
    parts = [
        str(java.resolve()),
        release.read_text(encoding="utf-8") if release.is_file() else "",
        *map(str, jars),
        importlib.metadata.version("pyspark"),
        str(spark.origin if spark else ""),
    ]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return cache_folder(home) / f"classes-{key}.jsa"


def archive_for(home: Path, java: Path, *jars: Path) -> Path | None:
    """The archive if it exists, else None: a step never waits for it."""
    path = archive_path(home, java, *jars)
    return path if path.is_file() else None


def ensure_classes(settings: Settings, java: Path, *jars: Path) -> Path | None:
    """Make the archive if it is missing (about 25 s, 200 MB).

    Args:
        settings: Spark's memory, and the home folder.
        java: The home of Java.
        jars: Folders of the jars in the order of a session's class path.

    Returns:
        The archive, or None where this Java cannot make one: steps run without it, 3 s slower.
    """
    path = archive_path(settings.home, java, *jars)
    if path.is_file():
        return path
    # The wheel's Java ships without the base archive, which this one extends.
    if not _ensure_base(java):
        log.info("Java at %s has no base archive: steps start without shared classes", java)
        return None
    log.info("making the archive of Spark's classes at %s (once)", path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".classes-") as temporary:
        made = Path(temporary) / "classes.jsa"
        program = [sys.executable, "-m", "tasks.lake.class_archive_run", str(java), str(made)]
        environment = {**os.environ, "FEDRISK_HOME": str(settings.home)}
        try:
            # The JVM is a grandchild: ending the program alone would leave it.
            with process_tree() as start:
                start([*program, *map(str, jars)], environment).communicate(
                    timeout=ARCHIVE_DEADLINE
                )
        except subprocess.TimeoutExpired:
            log.warning("Spark's class archive was not made within %.0f s", ARCHIVE_DEADLINE)
            return None
        if not made.is_file():
            log.warning("this Java made no archive of Spark's classes: steps start without it")
            return None
        made.replace(path)
    return path


def _ensure_base(java: Path) -> bool:
    server = java / "lib" / "server"
    if any(server.glob("classes*.jsa")):
        return True
    try:
        subprocess.run(
            [java / "bin" / "java", "-Xshare:dump"], capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return any(server.glob("classes*.jsa"))
