"""A lake in S3: its addresses, the options of the Delta reader, and the errors of the store.

The standard ``AWS_*`` variables set the endpoint and the key; a key stays in the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from tasks.errors import DataError, FedriskError, SettingsError, StoreUnavailable
from tasks.objects import REFUSED

_UNAVAILABLE = re.compile(
    # Java's, in Spark.
    r"UnknownHost|ConnectException|Connect to |ConnectTimeout|SocketTimeout|SocketException"
    r"|ApiCallTimeout|ConnectionClosed|NoHttpResponse|AWSServiceThrottled|AWSStatus500"
    r"|SSLHandshake|SSLException|Status Code: 5\d\d|Unable to execute HTTP request"
    # deltalake's and obstore's.
    r"|error sending request|timed out|dns error|status 5\d\d"
)
_REFUSED = re.compile(f"{REFUSED.pattern}|Status Code: 403")
_NO_KEY = re.compile(r"NoAuthWithAWS|NoAwsCredentials|Unable to load credentials")


class AccessDenied(DataError):  # noqa: N818  (names the state)
    """The store refuses this key."""


def is_s3(uri: str) -> bool:
    """Whether an address is in S3."""
    return uri.startswith(("s3a://", "s3://"))


def s3a_address(uri: str) -> str:
    """An address in Spark's form, ``s3a://`` for ``s3://``."""
    return f"s3a://{uri.removeprefix('s3://')}" if uri.startswith("s3://") else uri


def s3_address(uri: str) -> str:
    """An address in the form of deltalake and obstore, ``s3://`` for ``s3a://``."""
    return f"s3://{uri.removeprefix('s3a://')}" if uri.startswith("s3a://") else uri


def endpoint(environment: Mapping[str, str]) -> str:
    """The store's endpoint; empty for AWS."""
    return environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL", "")


def store_options(address: str) -> dict[str, str] | None:
    """What Delta's engine is told of an S3 store; keys it reads from the environment itself.

    Args:
        address: The table's address.

    Returns:
        The options; None where the table is not in S3.
    """
    if not address.startswith("s3://"):
        return None
    at = endpoint(os.environ)
    options = {"timeout": "20s", "connect_timeout": "10s", "max_retries": "3"}
    options["retry_timeout"] = "30s"
    if at:
        options["aws_endpoint_url"] = at
        options["aws_virtual_hosted_style_request"] = "false"
        options["aws_allow_http"] = str(at.startswith("http://")).lower()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region or at:
        options["aws_region"] = region or "us-east-1"
    return options


def store_error(text: str, uri: str, owner: str) -> FedriskError | None:
    """Translate a failure of an S3 store.

    Args:
        text: The text of the exception and its causes.
        uri: The address.
        owner: The owner of this process's key; empty where it is not known.

    Returns:
        The error to raise, without any part of a key; None where the store is not the cause.
    """
    if not is_s3(uri):
        return None
    bucket = uri.split("/")[2]
    who = owner or "this step"
    at = endpoint(os.environ) or "AWS"
    if _NO_KEY.search(text):
        return SettingsError(
            f"{uri}: {who} has no key for the store. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give the pod an identity that may use the bucket."
        )
    if _REFUSED.search(text):
        return AccessDenied(
            f"{uri}: bucket {bucket} refuses the key of {who}. docs/deployment.md lists the rights "
            "of each owner: check which key this process has, and the address."
        )
    if "NoSuchBucket" in text or "UnknownStoreException" in text:
        return DataError(
            f"{uri}: there is no bucket {bucket} at {at}. Create it, or check the address and "
            "AWS_ENDPOINT_URL."
        )
    if _UNAVAILABLE.search(text):
        return StoreUnavailable(
            f"{uri}: the store at {at} does not answer. Check AWS_ENDPOINT_URL and the network, "
            "and retry."
        )
    return None
