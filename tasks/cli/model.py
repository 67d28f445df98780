"""``fedrisk model``: change which registered model of a study is the champion."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("model", help="roll a study's champion back")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    rollback = actions.add_parser("rollback", help="swap champion and previous champion")
    rollback.add_argument("study", metavar="STUDY", help="the study's name")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Roll the champion back and print both versions.

    Raises:
        SettingsError: The study has no champion or no previous champion.
        TrackingError: MLflow does not answer.
    """
    from tasks.registry.champion import registered_name
    from tasks.registry.rollback import rollback

    champion, former = rollback(args.study, settings)
    name = registered_name(args.study)
    print(f"champion: version {champion} of {name}, before: version {former}")
    return 0
