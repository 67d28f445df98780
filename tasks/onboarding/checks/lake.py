"""Check that a hospital's key opens its own store and no other hospital's."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.objects import is_access_denied
from tasks.onboarding.checks.result import CheckResult, missing, ok, unknown

STORE_DEADLINE = 20.0
"""Seconds for one call to the store, including retries."""
CHECK_PREFIX = "fedrisk-check"
KEY = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Variables that give a pod or task a role instead of a key."""


def check_lake(
    settings: Mapping[str, str], name: str, hospitals: Sequence[str] = ()
) -> list[CheckResult]:
    """Write, read and delete one small object; try to list the other hospitals' stores.

    Args:
        settings: The kit's: ``FEDRISK_LAKE`` and ``AWS_*``.
        name: The hospital's name.
        hospitals: The study's hospitals.
    """
    what, lake = "own store", settings.get("FEDRISK_LAKE", "")
    own = lake.replace("{hospital}", name)
    if not own.startswith(("s3a://", "s3://")):
        return [unknown(what, f"FEDRISK_LAKE is {lake!r}, not s3a://", "Set it in hospital.env.")]
    if not all(settings.get(name) for name in KEY) and not any(map(os.environ.get, ROLES)):
        return [
            missing(
                what,
                "there is no key, and this process has no role",
                "Put AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into credentials.env, or run the "
                "check where the SuperNode runs, if that has a role.",
            )
        ]
    try:
        import obstore
    except ImportError:
        return [unknown(what, "needs fedrisk with its extra store")]
    key = f"{CHECK_PREFIX}/{secrets.token_hex(8)}"
    at = settings.get("AWS_ENDPOINT_URL") or "AWS"
    try:
        store = _open(own, settings)
        obstore.put(store, key, b"check")
        try:
            same = bytes(obstore.get(store, key).bytes()) == b"check"
        except BaseException:
            with contextlib.suppress(Exception):
                obstore.delete(store, key)
            raise
        obstore.delete(store, key)
    except Exception as error:  # noqa: BLE001  (obstore raises many kinds; none may end the check)
        return [_own_store_error(what, own, at, error)]
    if not same:
        return [missing(what, f"{own} returns other content", "Ask the store's administrator.")]
    found = [ok(what, f"{own} can be written, read and deleted from")]
    bucket = own.split("/")[2]
    # The kit's lake contains the hospital's name; another's has that hospital's name there.
    others = {
        other: lake.replace("{hospital}", other)
        if "{hospital}" in lake
        else own.replace(name, other)
        for other in hospitals
        if other != name and name and (name in bucket or "{hospital}" in lake)
    }
    if not others:
        found.append(unknown("others' stores", "their names are not known", "Add --study."))
    for other, uri in others.items():
        found.append(_refused(other, uri, settings))
    return found


def _own_store_error(what: str, own: str, at: str, error: Exception) -> CheckResult:
    kind, text = type(error).__name__, str(error)
    if is_access_denied(error):
        return missing(
            what,
            f"{own} refuses this key",
            "Ask for a key that may read and write it, and put it into credentials.env.",
        )
    if kind == "NotFoundError" or isinstance(error, FileNotFoundError) or "NoSuchBucket" in text:
        return missing(what, f"{at} has no {own}", "Create the bucket, or correct FEDRISK_LAKE.")
    return missing(
        what,
        f"the store at {at} does not answer ({kind})",
        "Check AWS_ENDPOINT_URL, AWS_REGION and the firewall.",
    )


def _refused(other: str, uri: str, settings: Mapping[str, str]) -> CheckResult:
    import obstore

    what = f"store of {other}"
    try:
        for page in obstore.list(_open(uri, settings), chunk_size=1):
            del page
            break
    except Exception as error:  # noqa: BLE001  (as above)
        kind = type(error).__name__
        if is_access_denied(error):
            return ok(what, "refuses this key, as it should")
        if kind == "NotFoundError" or isinstance(error, FileNotFoundError):
            return unknown(what, f"{uri} does not exist")
        return unknown(what, f"does not answer ({kind})")
    return missing(
        what,
        f"this key can list {uri}",
        "It has too many rights: ask for a key for this hospital's own store only.",
    )


def _open(uri: str, settings: Mapping[str, str]) -> Any:
    from datetime import timedelta

    from obstore.store import S3Store

    endpoint = settings.get("AWS_ENDPOINT_URL_S3") or settings.get("AWS_ENDPOINT_URL", "")
    config: Any = {"region": settings.get("AWS_REGION") or "us-east-1"}
    if all(settings.get(name) for name in KEY):
        access, secret = (settings[name] for name in KEY)
        config |= {"access_key_id": access, "secret_access_key": secret}
    if token := settings.get("AWS_SESSION_TOKEN"):
        config["session_token"] = token
    if endpoint:
        config["endpoint"] = endpoint
    seconds = timedelta(seconds=STORE_DEADLINE)
    client: Any = {"timeout": seconds, "connect_timeout": timedelta(seconds=5)}
    if endpoint.startswith("http://"):
        client["allow_http"] = True
    retry: Any = {"max_retries": 1, "retry_timeout": seconds}
    url = uri.replace("s3a://", "s3://", 1)
    return S3Store.from_url(url, config=config, client_options=client, retry_config=retry)
