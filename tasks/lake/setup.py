"""What ``fedrisk setup`` does for the lake: a Java, Delta's jars and the archive of classes."""

from __future__ import annotations

import logging

from tasks.lake.classes import ensure_classes
from tasks.lake.jars import ensure_jars
from tasks.lake.java import find_java
from tasks.settings import Settings

log = logging.getLogger(__name__)


def prepare(settings: Settings) -> None:
    """Make ready what Spark needs; what is there already is kept, so a second call is instant.

    Args:
        settings: Where things live.

    Raises:
        FedriskError: There is no Java, or Delta's jars could not be fetched.
    """
    java = find_java(settings)
    jars = ensure_jars(settings.home, java)
    archive = ensure_classes(settings, java, jars)
    log.info("Spark is ready: Java %s, jars %s, classes %s", java, jars, archive or "not shared")
