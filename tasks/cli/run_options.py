"""The options of a run, common to ``fedrisk run`` and ``fedrisk step plan``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.run.plan import Request


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--source", metavar="PATH|URL", help="table, or folder of the hospitals' own tables"
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", help="maximum federated rounds")
    parser.add_argument("--strategy", metavar="S", help="such as scaffold, fedavg, fedprox")
    add_hospitals(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="default: the study's seed")
    add_overrides(parser)
    parser.add_argument(
        "--no-promote",
        dest="promote",
        action="store_false",
        help="evaluate the gates but promote nothing",
    )


def add_hospitals(parser: argparse.ArgumentParser) -> None:
    """Declare ``--hospitals``."""
    parser.add_argument(
        "--hospitals", type=_names, default=[], metavar="a,b,c", help="the hospitals to include"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Declare ``--set``."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="path.to.key=value",
        help="any key of the study, for this run; may be repeated",
    )


def read_request(args: argparse.Namespace, study: Path) -> Request:
    """The run's request, with absolute paths for the study and a local source."""
    from tasks.run.plan import Request
    from tasks.run.sources import is_remote

    source = args.source
    if source is not None and not is_remote(source):
        source = str(Path(source.removeprefix("file://")).absolute())
    return Request(
        study=str(study),
        source=source,
        hospitals=args.hospitals,
        strategy=args.strategy,
        rounds=args.rounds,
        seed=args.seed,
        promote=args.promote,
        overrides=args.overrides,
    )


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected names separated by commas")
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, not {text!r}")
    return int(text)
