"""Folders that are created atomically."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import SettingsError


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Create a folder under a temporary name and rename it once the block has filled it.

    Args:
        out: The folder to create; may exist if it is empty.

    Yields:
        The temporary folder, accessible to its owner only.

    Raises:
        SettingsError: ``out`` is a file or not empty, or it cannot be written.
    """
    if out.is_dir() and any(out.iterdir()):
        raise SettingsError(f"--out {out}: the folder is not empty. Name a new one, or empty it.")
    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out {out}: is a file. Name a new folder.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be made ({error.strerror}).") from None
    try:
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be written ({error.strerror}).") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
