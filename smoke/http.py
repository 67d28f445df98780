"""Pages of this machine and of services that it reaches, without a proxy."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping

from smoke.command import StackError


def page_of(url: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Return what a page says.

    Args:
        url: Its address.
        headers: Sent with the request.

    Raises:
        StackError: It does not answer, or not with a page.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(
            urllib.request.Request(url, headers=dict(headers or {})), timeout=30
        ) as answer:
            return bytes(answer.read())
    except OSError as error:
        raise StackError(f"{url}: {error}") from None
