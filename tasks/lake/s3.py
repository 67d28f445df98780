"""Spark's access to an S3 store, from the standard ``AWS_*`` variables.

A key stays in the environment, where the JVM reads it, because Spark shows its configuration in
logs and pages. Every wait is bounded, so that a missing store ends a step within a minute.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import time
import urllib.parse
from collections.abc import Mapping

from tasks.errors import SettingsError, StoreUnavailable
from tasks.s3 import endpoint

STORE_TRIES, STORE_TIMEOUT = 3, 10.0
"""Number of probes of a store, and the timeout of each in seconds."""
SDK_CREDENTIALS = "software.amazon.awssdk.auth.credentials"


def s3a_configuration(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Spark's configuration for ``s3a://``.

    Args:
        environment: The variables to read; this process's by default.
    """
    given = os.environ if environment is None else environment
    address = endpoint(given)
    region = given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION", "")
    key = "EnvironmentVariable" if given.get("AWS_ACCESS_KEY_ID") else "Default"
    options = {
        # The environment's key, or the identity of the machine or pod.
        "aws.credentials.provider": f"{SDK_CREDENTIALS}.{key}CredentialsProvider",
        # The simple reader; the other needs a further library and helps only with large files.
        "input.stream.type": "classic",
        # Upload buffers are in memory, not on a pod's disk: at most 2 x 16 MB per file.
        "fast.upload.buffer": "array",
        "fast.upload.active.blocks": "2",
        "multipart.size": "16M",
        # A table has one writer and file names are unique, so writes need no lookup.
        "performance.flags": "create,mkdir",
        "threads.max": "16",
        "connection.maximum": "32",
        # Hadoop's minimum for this timeout is 15 s.
        "connection.establish.timeout": "15s",
        "connection.timeout": "20s",
        "connection.request.timeout": "20s",
        "connection.acquisition.timeout": "20s",
        "attempts.maximum": "2",
        "retry.limit": "1",
        "retry.throttle.limit": "4",
    }
    if address:
        options["endpoint"] = address
        options["path.style.access"] = "true"
        options["connection.ssl.enabled"] = str(not address.startswith("http://")).lower()
    if region or address:
        options["endpoint.region"] = region or "us-east-1"
    configuration = {f"spark.hadoop.fs.s3a.{name}": value for name, value in options.items()}
    configuration["spark.delta.logStore.s3a.impl"] = "io.delta.storage.S3SingleDriverLogStore"
    return configuration


def wait_for_store(environment: Mapping[str, str] | None = None) -> None:
    """Wait until a self-hosted store responds; any response counts.

    Spark would retry each operation on a silent store, for minutes in total, and only after Java
    has started. AWS is not probed: it may be behind a proxy that only Java knows.

    Args:
        environment: The variables to read; this process's by default.

    Raises:
        SettingsError: The address is not valid.
        StoreUnavailable: No response within 35 s.
    """
    address = endpoint(os.environ if environment is None else environment)
    if not address:
        return
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"AWS_ENDPOINT_URL={address} is not http://HOST[:PORT] or https://.")
    kind = http.client.HTTPConnection if parts.scheme == "http" else http.client.HTTPSConnection
    for attempt in range(STORE_TRIES):
        connection = kind(parts.hostname, parts.port, timeout=STORE_TIMEOUT)
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            try:
                connection.request("GET", "/")
                connection.getresponse()
            except ssl.SSLCertVerificationError:
                # The store is up; Java has its own trusted certificates.
                return
            return
        if attempt < STORE_TRIES - 1:
            time.sleep(2)
    raise StoreUnavailable(
        f"the store at {address} does not answer. Check AWS_ENDPOINT_URL and the network, and "
        "retry."
    )
