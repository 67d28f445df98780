"""What ``fedrisk setup --spark`` prepares: Java, the jars and the archive of their classes."""

from __future__ import annotations

import logging

from tasks.lake.jvm.class_archive import ensure_classes
from tasks.lake.jvm.find_java import find_java
from tasks.lake.jvm.jars import ensure_jars, ensure_s3_jars
from tasks.s3 import is_s3
from tasks.settings import Settings

log = logging.getLogger(__name__)


def prepare(settings: Settings, *, s3: bool = False) -> None:
    """Fetch or create what Spark needs and is missing; a second call is instant.

    Args:
        settings: Java, home and lake.
        s3: Whether to prepare for ``s3a://`` addresses even if the lake is not in S3.

    Raises:
        FedriskError: There is no Java, or jars could not be fetched.
    """
    java = find_java(settings)
    jars = [ensure_jars(settings.home, java)]
    if s3 or is_s3(settings.lake):
        jars.append(ensure_s3_jars(settings.home, java))
    archive = ensure_classes(settings, java, *jars)
    folders = ", ".join(map(str, jars))
    log.info("Spark is ready: Java %s, jars %s, classes %s", java, folders, archive or "not shared")
