"""How the files of the stack's volumes are written: each once, whole, and for its reader alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

USER = 1000
"""Everything but Postgres runs as this user, and its group has the same number."""


def put(path: Path, make: Callable[[], str], mode: int = 0o400) -> str:
    """Read a file, or make it first.

    Args:
        path: The file.
        make: Makes its content.
        mode: Who may read it.

    Returns:
        Its content.
    """
    if not path.exists():
        write(path, make(), mode)
        print(f"made {path.parent.name}/{path.name}")
    return path.read_text(encoding="utf-8")


def write(path: Path, text: str, mode: int = 0o400) -> None:
    """Write a file in one go, so that nobody reads half of it, and leave one that is so already.

    It is its reader's from the first moment: a process that waits for it looks at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    # No `*.pub`: the SuperLink takes every file of that name for a key.
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
        os.fchown(file.fileno(), USER, USER)
    new.replace(path)
