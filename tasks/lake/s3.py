"""How Spark reaches an S3 store, from the ordinary ``AWS_*`` variables.

A key stays in the environment, where the JVM reads it: Spark's own configuration is shown in logs
and pages. Every wait is bounded, so that a store that is not there ends a step within a minute.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import ssl
import time
import urllib.parse
from collections.abc import Mapping

from tasks.errors import DataError, FedriskError, SettingsError, StoreUnavailable

STORE_TRIES, STORE_TIMEOUT = 3, 10.0
"""How often a store is asked for a sign of life, and for how many seconds each time."""
SDK_CREDENTIALS = "software.amazon.awssdk.auth.credentials"
_AWAY = re.compile(
    r"UnknownHost|ConnectException|Connect to |ConnectTimeout|SocketTimeout|SocketException"
    r"|ApiCallTimeout|ConnectionClosed|NoHttpResponse|AWSServiceThrottled|AWSStatus500"
    r"|SSLHandshake|SSLException|Status Code: 5\d\d|Unable to execute HTTP request"
)
_REFUSED = re.compile(r"AccessDenied|Status Code: 403|InvalidAccessKeyId|SignatureDoesNotMatch")
_NO_KEY = re.compile(r"NoAuthWithAWS|NoAwsCredentials|Unable to load credentials")


class StoreAccessDenied(DataError):  # noqa: N818  (it says what is the matter)
    """The store answers that this key may not do this."""


def is_s3(uri: str) -> bool:
    """Whether an address is one of S3."""
    return uri.startswith(("s3a://", "s3://"))


def s3a_address(uri: str) -> str:
    """An address as Spark's file system takes it: ``s3://`` is ``s3a://`` there."""
    return f"s3a://{uri.removeprefix('s3://')}" if uri.startswith("s3://") else uri


def endpoint(environment: Mapping[str, str]) -> str:
    """The store's address; empty for AWS's own."""
    return environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL", "")


def s3a_configuration(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Spark's configuration for ``s3a://``.

    Args:
        environment: The variables to read; those of this process by default.
    """
    given = os.environ if environment is None else environment
    address = endpoint(given)
    region = given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION", "")
    key = "EnvironmentVariable" if given.get("AWS_ACCESS_KEY_ID") else "Default"
    options = {
        # The environment's key, or whatever identity the machine or pod has.
        "aws.credentials.provider": f"{SDK_CREDENTIALS}.{key}CredentialsProvider",
        # The plain reader; the other one wants a library more and pays for files of many MB.
        "input.stream.type": "classic",
        # Rows wait in memory for their upload and not on a pod's disk: 2 x 16 MB a file at most.
        "fast.upload.buffer": "array",
        "fast.upload.active.blocks": "2",
        "multipart.size": "16M",
        # A table has one writer and a file a name of its own: nothing to look up before a write.
        "performance.flags": "create,mkdir",
        "threads.max": "16",
        "connection.maximum": "32",
        # Hadoop asks no fewer than 15 s of each.
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
    """Ask a store of one's own for a sign of life, which any answer is.

    Spark asks a silent store again at every turn, for minutes in all, and only after Java has
    started. AWS's own address is not asked: it may be behind a proxy that Java alone knows.

    Args:
        environment: The variables to read; those of this process by default.

    Raises:
        SettingsError: The address is not one.
        StoreUnavailable: No answer within 35 s.
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
                # It lives; whom Java trusts is for Java to say.
                return
            return
        if attempt < STORE_TRIES - 1:
            time.sleep(2)
    raise StoreUnavailable(
        f"the store at {address} does not answer. Check AWS_ENDPOINT_URL and the network, and "
        "retry."
    )


def store_error(told: str, uri: str, owner: str) -> FedriskError | None:
    """What an S3 store's failure means, in our words.

    Args:
        told: What Java's exception and its causes say of themselves.
        uri: The address that was asked for.
        owner: Whose key this process has; empty where that is not known.

    Returns:
        The error to raise, without any word of a key; None where the store is not the cause.
    """
    if not is_s3(uri):
        return None
    bucket = uri.split("/")[2]
    who = owner or "this step"
    at = endpoint(os.environ) or "AWS"
    if _NO_KEY.search(told):
        return SettingsError(
            f"{uri}: {who} has no key for the store. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give the pod an identity that may use the bucket."
        )
    if _REFUSED.search(told):
        return StoreAccessDenied(
            f"{uri}: bucket {bucket} refuses the key of {who}. Every owner may use what "
            "docs/deployment.md says of its key and nothing else: check whose key this process "
            "has, and the address."
        )
    if "NoSuchBucket" in told or "UnknownStoreException" in told:
        return DataError(
            f"{uri}: there is no bucket {bucket} at {at}. Make it, or check the address and "
            "AWS_ENDPOINT_URL."
        )
    if _AWAY.search(told):
        return StoreUnavailable(
            f"{uri}: the store at {at} does not answer. Check AWS_ENDPOINT_URL and the network, "
            "and retry."
        )
    return None
