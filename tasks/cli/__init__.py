"""The command ``fedrisk``: parses arguments, calls one package, maps errors to exit codes.

Nothing heavy is imported here or by the modules that only declare arguments, so that help and
usage errors are fast.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import signal
import sys
from collections.abc import Sequence

from tasks.errors import ExitCode, FedriskError

INTERRUPTED = 130
COLLECT_AFTER = 50_000
"""New objects between two collections of the youngest generation."""
COMMANDS = (
    *("run", "up", "step", "study", "synth", "runs", "report", "setup"),
    *("federation", "hospital", "model"),
)
"""One module each, with ``add_parser(subparsers)`` and ``run(args, settings)``."""


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM or SIGHUP."""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        prog="fedrisk",
        description="Federated risk prediction for hospitals.",
        epilog="Exit codes: 0 done; 1 internal error; 2 bad input, study or arguments; "
        "3 a gate failed or a study is not approved; 4 something was unavailable, try again.",
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
    # The libraries of a step make a million objects that stay while they are imported. With the
    # default of 700 the collector walks them so often that it is a third of the time to start.
    gc.set_threshold(COLLECT_AFTER)
    # Our own messages, but only warnings of libraries.
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
        # The reader of the output has gone, so no message can reach it.
        sys.stderr.close()
        return int(ExitCode.FAILED)


def _terminate(_number: int, _frame: object) -> None:
    raise Terminated
