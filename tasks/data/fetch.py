"""Bring a source from elsewhere onto this machine's disk, for as long as a step reads it."""

from __future__ import annotations

import http.client
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tasks.errors import DataError, ExitCode, FedriskError
from tasks.objects import download_all
from tasks.s3 import is_s3, s3_address

DEADLINE = 900.0
"""Seconds that a download may take in all."""
SILENCE = 60.0
"""Seconds without a byte after which a server counts as gone."""
_CHUNK = 1 << 20
_RESERVE = 1 << 28
"""Bytes of disk that a download leaves free."""


class SourceAway(FedriskError):  # noqa: N818  (it says what is the matter)
    """A source's server does not answer: retry."""

    exit_code = ExitCode.TRANSIENT


def public_name(uri: str) -> str:
    """A source for messages and manifests: without user, password, query and fragment."""
    if "://" not in uri:
        return uri
    parts = urllib.parse.urlsplit(uri)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return urllib.parse.urlunsplit((parts.scheme, host + port, parts.path, "", ""))


def local_copy(uri: str, folder: Path, where: str) -> Path:
    """Return a path of this machine that holds what ``uri`` names.

    Args:
        uri: A path, ``file://``, ``https://`` or ``s3a://`` address; ``s3://`` is the same.
        folder: Where a copy is put; the caller removes it.
        where: The message's first words.

    Raises:
        DataError: There is no such source, or its kind of address is not known.
        SourceAway: The server does not answer in time.
    """
    if uri.startswith("file:"):
        return Path("/" + uri.removeprefix("file:").lstrip("/"))
    if "://" not in uri:
        return Path(uri)
    scheme = uri.split("://")[0]
    target = folder / (Path(urllib.parse.urlsplit(uri).path).name or "source")
    if scheme == "https" or (scheme == "http" and _is_loopback(uri)):
        download(uri, target, where)
        return target
    if is_s3(uri):
        _copy_from_store(uri, target, where)
        return target
    raise DataError(f"{where}: {scheme}:// is not read. Use a path, s3a:// or https://.")


def download(url: str, target: Path, where: str, deadline: float = DEADLINE) -> None:
    """Stream a URL into a file.

    Args:
        url: What to fetch.
        target: The file.
        where: The message's first words.
        deadline: Seconds that it may take in all.

    Raises:
        DataError: The server refuses, or the disk is too small.
        SourceAway: No answer in time, or the connection broke off.
    """
    end = time.monotonic() + deadline
    name = public_name(url)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "fedrisk"})
        with (
            urllib.request.urlopen(request, timeout=min(SILENCE, deadline)) as answer,
            target.open("wb") as file,
        ):
            stated = answer.headers.get("Content-Length")
            _check_disk(int(stated or 0), target, where)
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                if time.monotonic() > end:
                    raise SourceAway(f"{where}: {name} took longer than {deadline:.0f} s. Retry.")
                _check_disk(0, target, where)
        if stated is not None and target.stat().st_size != int(stated):
            raise SourceAway(
                f"{where}: {name} broke off after {target.stat().st_size} of {stated} bytes. Retry."
            )
    except urllib.error.HTTPError as error:
        if error.code >= 500 or error.code in (408, 425, 429):
            raise SourceAway(f"{where}: {name} answers {error.code}. Retry.") from None
        raise DataError(f"{where}: {name} answers {error.code}. Check the address.") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            raise DataError(f"{where}: {name} has no valid certificate.") from None
        raise SourceAway(f"{where}: {name} cannot be reached ({error.reason}). Retry.") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise SourceAway(f"{where}: {name} broke off ({type(error).__name__}). Retry.") from None


def _check_disk(more: int, target: Path, where: str) -> None:
    if shutil.disk_usage(target.parent).free < more + _RESERVE:
        raise DataError(f"{where}: the disk of {target.parent} has no room for the source.")


def _is_loopback(uri: str) -> bool:
    return (urllib.parse.urlsplit(uri).hostname or "") in ("127.0.0.1", "localhost", "::1")


def _copy_from_store(uri: str, target: Path, where: str) -> None:
    _, _, bucket, *names = s3_address(uri).split("/")
    if not download_all(f"s3://{bucket}", "/".join(names), target):
        raise DataError(f"{where}: {uri} does not exist. Check the address.")
