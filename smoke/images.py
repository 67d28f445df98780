"""The images that a smoke command looks at: of this checkout, unless others are named."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from smoke.command import call

BUILT = "dev"
"""Tag of what was built last."""
BUILD = 3600.0
"""Seconds for all images on a machine that has none of their layers."""


def ready_images(names: Sequence[str], tag: str = "") -> str:
    """Build images where no tag is given, and return their tag.

    Args:
        names: Of images, without ``fedrisk-``.
        tag: Theirs, where they exist already; empty to build them from this checkout, which takes
            seconds where nothing has changed.

    Returns:
        Their tag.

    Raises:
        StackError: They could not be built, or one of the named tag is missing.
    """
    if not tag:
        print(f"building {', '.join(names)}: minutes where no layer is there yet", flush=True)
        call(sys.executable, "images/build.py", *names, deadline=BUILD)
    tag = tag or BUILT
    call("docker", "image", "inspect", *(f"fedrisk-{name}:{tag}" for name in names))
    return tag


def revision(name: str, tag: str) -> str:
    """Git revision that an image was built of."""
    label = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
    return call("docker", "image", "inspect", "-f", label, f"fedrisk-{name}:{tag}").stdout.strip()
