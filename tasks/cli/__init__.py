"""The command ``fedrisk``: reads arguments, calls one room, and turns errors into exit codes.

Nothing heavy is imported here or by the modules that only declare arguments, so that help and
mistakes answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import sys
from collections.abc import Sequence

from tasks.errors import ExitCode, FedriskError

INTERRUPTED = 130
COMMANDS = (
    *("run", "up", "step", "study", "synth", "runs", "report", "setup"),
    *("federation", "hospital"),
)
"""Each in a module of its own, with ``add_parser(subparsers)`` and ``run(args, settings)``."""


class Terminated(KeyboardInterrupt):
    """Somebody has asked the process to end."""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        prog="fedrisk",
        description="Federated risk prediction for hospitals.",
        epilog="Exit codes: 0 done; 1 a fault of the program; 2 bad input, study or arguments; "
        "3 a gate failed or a budget is exhausted; 4 something was away, try again.",
    )
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"tasks.cli.{name}").add_parser(subparsers)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line; this process's by default.

    Returns:
        The exit code. Wrong arguments exit with 2 at once.
    """
    # Our own remarks, and only warnings of libraries.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("tasks").setLevel(logging.INFO)
    args = parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    from tasks.cli.settings import command_settings

    try:
        command = importlib.import_module(f"tasks.cli.{args.command}")
        return int(command.run(args, command_settings()))
    except FedriskError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    except Terminated:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; there is nobody to tell.
        sys.stderr.close()
        return int(ExitCode.FAILED)


def _terminate(_number: int, _frame: object) -> None:
    raise Terminated
