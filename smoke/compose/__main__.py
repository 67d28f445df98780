"""``python -m smoke.compose``: the compose stack from nothing to a champion and back to nothing.

Everything that it starts has the project's name ``fedrisk-smoke`` and ports of its own, so a stack
that is in use is left alone. It is taken down at the end, on failure and on Ctrl-C too.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from smoke.compose.stages import CHOICE, smoke
from smoke.table import Table


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m smoke.compose", description=__doc__)
    parser.add_argument("--project", default="fedrisk-smoke", help="the stack's project name")
    parser.add_argument(
        "--tag", default="", help="use these images; default: build this checkout's"
    )
    parser.add_argument(
        "--only",
        default=",".join(CHOICE),
        help="of the stages that a run can do without: %(default)s",
    )
    parser.add_argument("--table", type=Path, help="write the table as JSON too")
    parser.add_argument("--shots", type=Path, help="folder for pictures of the pages")
    parser.add_argument("--browser", action="store_true", help="fail where there is no browser")
    parser.add_argument("--keep", action="store_true", help="leave the stack up")
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else []
    if unknown := set(wanted) - set(CHOICE):
        parser.error(
            f"--only: no stage {', '.join(sorted(unknown))}; there are {', '.join(CHOICE)}"
        )
    return smoke(given, Table(), wanted)


if __name__ == "__main__":
    sys.exit(main())
