"""Objects in an S3 bucket, or files in a folder: read, write, list, delete, with deadlines.

A store is given by a URL, ``s3://bucket[/prefix]`` or ``file:///folder``. The standard ``AWS_*``
variables set the endpoint and the key of S3.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import DataError, SettingsError, StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

STORE_TIMEOUT = 30.0
"""Seconds to retry a store that does not answer."""
NO_BUCKET = "<Code>NoSuchBucket</Code>"
"""Part of S3's response; the client reports a missing bucket as a missing object."""
REFUSED = re.compile("AccessDenied|403 Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch")
"""S3's refusal of a key in messages of obstore and deltalake, which share a client. The number 403
alone is no evidence: ports, durations and request ids in a message can contain it."""


def get(store: str, key: str) -> bytes | None:
    """Read an object.

    Args:
        store: ``s3://bucket[/prefix]`` or ``file:///folder``.
        key: The object's name below it.

    Returns:
        Its content; None where the object does not exist.

    Raises:
        DataError: The store refuses this party's key, or bucket or name is not valid.
        StoreUnavailable: It does not answer.
    """
    import obstore

    with contextlib.suppress(FileNotFoundError), _translated_errors(store, key, "read"):
        return bytes(obstore.get(_store(store), key).bytes())
    return None


def put(store: str, key: str, content: bytes) -> None:
    """Write an object atomically.

    Args:
        store: ``s3://bucket[/prefix]`` or ``file:///folder``.
        key: The object's name below it.
        content: Its content.

    Raises:
        DataError: The store refuses this party's key, or bucket or name is not valid.
        StoreUnavailable: It does not answer.
    """
    import obstore

    with _translated_errors(store, key, "write"):
        obstore.put(_store(store), key, content)


def download_all(store: str, key: str, target: Path) -> bool:
    """Copy an object, or all objects of a folder, to this machine.

    Args:
        store: ``s3://bucket[/prefix]`` or ``file:///folder``.
        key: The object's or folder's name below it.
        target: The file or folder to create.

    Returns:
        Whether there is such an object or folder.

    Raises:
        DataError: The store refuses this party's key, or bucket or name is not valid.
        StoreUnavailable: It does not answer.
    """
    if _download(store, key, target):
        return True
    names = list(keys(store, key))
    for name in names:
        _download(store, name, target / name.removeprefix(f"{key}/"))
    return bool(names)


def _download(store: str, key: str, target: Path) -> bool:
    import obstore

    with contextlib.suppress(FileNotFoundError), _translated_errors(store, key, "read"):
        parts = obstore.get(_store(store), key).stream(min_chunk_size=1 << 20)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for part in parts:
                file.write(part)
        return True
    return False


def remove(store: str, key: str) -> None:
    """Delete an object if it exists.

    Args:
        store: ``s3://bucket[/prefix]`` or ``file:///folder``.
        key: The object's name below it.

    Raises:
        DataError: The store refuses this party's key, or bucket or name is not valid.
        StoreUnavailable: It does not answer.
    """
    import obstore

    with contextlib.suppress(FileNotFoundError), _translated_errors(store, key, "delete"):
        obstore.delete(_store(store), key)


def keys(store: str, prefix: str) -> Iterator[str]:
    """List the objects in a folder.

    Args:
        store: ``s3://bucket[/prefix]`` or ``file:///folder``.
        prefix: The folder.

    Raises:
        DataError: The store refuses this party's key, or bucket or name is not valid.
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
    # The cache must distinguish credentials.
    variables = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
    return _opened(url, variables)


@functools.lru_cache(maxsize=64)
def _opened(url: str, variables: tuple[tuple[str, str], ...]) -> ObjectStore:
    del variables
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
    """Translate the exceptions of the store's client.

    A missing object is left to the caller; a missing bucket is an error.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except (ValueError, TypeError) as error:  # deleting an invalid path raises TypeError
        raise DataError(f"{store}: {key!r} is not a valid object name ({error}).") from None
    except FileNotFoundError as error:
        if NO_BUCKET in str(error):
            raise _no_bucket(store) from None
        raise
    except BaseError as error:
        text, name = str(error), type(error).__name__
        if is_access_denied(error):
            raise DataError(
                f"{store}: this party's key may not {what} {key}. Check AWS_ACCESS_KEY_ID and its "
                "owner's rights (docs/deployment.md)."
            ) from None
        if NO_BUCKET in text:
            raise _no_bucket(store) from None
        raise StoreUnavailable(
            f"{store}: could not {what} {key} ({name}). Is the store up?"
        ) from None


def is_access_denied(error: BaseException) -> bool:
    """Whether an error of the store's client means that the store refuses the key.

    Listing and deleting raise no specific exception for it.

    Args:
        error: The exception of obstore.
    """
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        return True
    return REFUSED.search(str(error)) is not None


def _no_bucket(store: str) -> DataError:
    return DataError(f"{store}: there is no such bucket. Create it, or correct the address.")
