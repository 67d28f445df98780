"""Write the files of the stack's volumes: once, atomically, and readable only by their user."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

USER = 1000
"""User and group id of all containers but Postgres."""


def put(path: Path, make: Callable[[], str], mode: int = 0o400) -> str:
    """Read a file; create it first if it is missing.

    Args:
        path: The file.
        make: Returns its content.
        mode: Its permissions.

    Returns:
        Its content.
    """
    if not path.exists():
        write(path, make(), mode)
        print(f"made {path.parent.name}/{path.name}")
    return path.read_text(encoding="utf-8")


def write(path: Path, text: str, mode: int = 0o400) -> None:
    """Write a file atomically, unless it has this content.

    Owner and permissions are set before the rename, because a waiting process reads it at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    # Not `*.pub`: the SuperLink reads every file of that name as a key.
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
        os.fchown(file.fileno(), USER, USER)
    new.replace(path)
