"""Objects in an S3 bucket, or files in a folder: read, write, list, delete, with deadlines.

A store is named by a URL, ``s3://bucket[/prefix]`` or ``file:///folder``. Where S3 is and with
which key it is asked are the ordinary ``AWS_*`` variables.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tasks.errors import DataError, SettingsError, StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

STORE_TIMEOUT = 30.0
"""Seconds that a store which does not answer is tried again."""
NO_BUCKET = "<Code>NoSuchBucket</Code>"
"""In S3's answer. The client makes of it what it makes of a missing object: there is none."""

REFUSED = re.compile("AccessDenied|403 Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch")
"""How obstore and deltalake, which have one client, tell that S3 refuses a key. The number 403
alone says nothing: ports, durations and request identifiers in a message hold it by chance."""


def get(store: str, key: str) -> bytes | None:
    """Read an object.

    Args:
        store: ``s3://bucket[/prefix]`` or ``file:///folder``.
        key: The object's name below it.

    Returns:
        Its content; None where there is none.

    Raises:
        DataError: The store refuses this party's key, there is no such bucket, or the name is none.
        StoreUnavailable: It does not answer.
    """
    import obstore

    with contextlib.suppress(FileNotFoundError), _translated_errors(store, key, "read"):
        return bytes(obstore.get(_store(store), key).bytes())
    return None


def put(store: str, key: str, content: bytes) -> None:
    """Write an object, whole or not at all.

    Args:
        store: ``s3://bucket[/prefix]`` or ``file:///folder``.
        key: The object's name below it.
        content: What it shall hold.

    Raises:
        DataError: The store refuses this party's key, there is no such bucket, or the name is none.
        StoreUnavailable: It does not answer.
    """
    import obstore

    with _translated_errors(store, key, "write"):
        obstore.put(_store(store), key, content)


def remove(store: str, key: str) -> None:
    """Delete an object; nothing where there is none.

    Args:
        store: ``s3://bucket[/prefix]`` or ``file:///folder``.
        key: The object's name below it.

    Raises:
        DataError: The store refuses this party's key, there is no such bucket, or the name is none.
        StoreUnavailable: It does not answer.
    """
    import obstore

    with contextlib.suppress(FileNotFoundError), _translated_errors(store, key, "delete"):
        obstore.delete(_store(store), key)


def keys(store: str, prefix: str) -> Iterator[str]:
    """List the objects below a prefix, which is a folder's name.

    Args:
        store: ``s3://bucket[/prefix]`` or ``file:///folder``.
        prefix: The folder.

    Raises:
        DataError: The store refuses this party's key, there is no such bucket, or the name is none.
        StoreUnavailable: It does not answer.
    """
    import obstore

    pages: list[Any] = []
    with contextlib.suppress(FileNotFoundError), _translated_errors(store, prefix, "list"):
        pages = list(obstore.list(_store(store), prefix))
    for page in pages:
        for each in page:
            yield str(each["path"])


def _store(url: str) -> ObjectStore:
    # Another user's credentials make another store.
    who = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
    return _opened(url, who)


@functools.lru_cache(maxsize=64)
def _opened(url: str, who: tuple[tuple[str, str], ...]) -> ObjectStore:
    del who
    from datetime import timedelta

    try:
        from obstore.store import LocalStore, S3Store
    except ImportError:
        raise SettingsError(
            "FEDRISK_STORE or a lake in S3 needs fedrisk with its extra store (obstore)."
        ) from None
    if url.startswith("file://"):
        return LocalStore(url.removeprefix("file://"), mkdir=True)
    seconds = timedelta(seconds=STORE_TIMEOUT)
    client: Any = {"timeout": seconds, "connect_timeout": timedelta(seconds=10)}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    config: Any = {"endpoint": endpoint} if endpoint else {}
    if endpoint.startswith("http://"):
        client["allow_http"] = True
    retry: Any = {
        "max_retries": 8,
        "retry_timeout": seconds,
        "backoff": {
            "init_backoff": timedelta(milliseconds=200),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    }
    return S3Store.from_url(url, config=config, client_options=client, retry_config=retry)


@contextlib.contextmanager
def _translated_errors(store: str, key: str, what: str) -> Iterator[None]:
    """Say in our words what the store's client says in its own.

    An object that is not there is left to the caller; a bucket that is not there is no such thing.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except (ValueError, TypeError) as error:  # the second is what deleting says of a wrong path
        raise DataError(f"{store}: {key!r} is no name of an object ({error}).") from None
    except FileNotFoundError as error:
        if NO_BUCKET in str(error):
            raise _no_bucket(store) from None
        raise
    except BaseError as error:
        text, name = str(error), type(error).__name__
        if is_access_denied(error):
            raise DataError(
                f"{store}: this party's key may not {what} {key}. Check AWS_ACCESS_KEY_ID and "
                "what docs/deployment.md says its owner may do."
            ) from None
        if NO_BUCKET in text:
            raise _no_bucket(store) from None
        raise StoreUnavailable(
            f"{store}: could not {what} {key} ({name}). Is the store up?"
        ) from None


def is_access_denied(error: BaseException) -> bool:
    """Whether an error of the store's client says that the store refuses the key.

    Listing and deleting have no kind of error of their own for it.

    Args:
        error: What obstore raised.
    """
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        return True
    return REFUSED.search(str(error)) is not None


def _no_bucket(store: str) -> DataError:
    return DataError(f"{store}: there is no such bucket. Make it, or correct the address.")
