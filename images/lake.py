"""Put into an image what Spark reads at run time: jars, their classes' archive, native libraries.

Runs while an image is built, with the rooms that ``lake`` needs beside it, so that a change
elsewhere in the code fetches nothing again.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import sys
import zipfile
from pathlib import Path

from tasks.errors import FedriskError
from tasks.lake.jvm import class_archive as classes
from tasks.lake.jvm.jars import cache_folder
from tasks.lake.setup import prepare
from tasks.settings import Settings

NATIVE = {
    "snappy-java": "org/xerial/snappy/native/Linux/{uname}/libsnappyjava.so",
    "zstd-jni": "linux/{java}/libzstd-jni-{version}.so",
    "lz4-java": "net/jpountz/util/linux/{java}/liblz4-java.so",
}
"""Jars of PySpark that unpack a library into ``/tmp`` and load it: a container's ``/tmp`` is often
mounted without the right to do so. The image's Java is told where they are (``java`` stage)."""

PATIENCE = 900.0
"""Seconds for making the archive: a build may wait longer for it than a person."""


def unpack_libraries(target: Path) -> None:
    """Unpack the native libraries.

    Args:
        target: Folder to make.

    Raises:
        FileNotFoundError: PySpark does not bring such a jar.
        KeyError: The jar has no library for this machine.
    """
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise FileNotFoundError("PySpark is not installed")
    target.mkdir()
    uname = platform.machine()
    java = {"x86_64": "amd64"}.get(uname, uname)
    for name, pattern in NATIVE.items():
        jars = sorted((Path(found.origin).parent / "jars").glob(f"{name}-[0-9]*.jar"))
        if len(jars) != 1:
            raise FileNotFoundError(f"PySpark has {len(jars)} jars {name}, expected 1")
        version = jars[0].stem.removeprefix(f"{name}-")
        member = pattern.format(uname=uname, java=java, version=version)
        library = target / Path(member).name.replace(f"-{version}", "")
        with zipfile.ZipFile(jars[0]) as jar:
            library.write_bytes(jar.read(member))
        library.chmod(0o755)


def main() -> None:
    """Prepare; an image that lacks anything of it is not made.

    Raises:
        FedriskError: Something could not be fetched.
        SystemExit: This Java made no archive.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = Settings.from_environment()
    unpack_libraries(Path(os.environ["JAVA_HOME"]) / "native")
    classes.ARCHIVE_DEADLINE = PATIENCE
    prepare(settings, s3=True)
    if not list(cache_folder(settings.home).glob("classes-*.jsa")):
        sys.exit("the archive of Spark's classes was not made")


if __name__ == "__main__":
    try:
        main()
    except FedriskError as error:
        sys.exit(str(error))
