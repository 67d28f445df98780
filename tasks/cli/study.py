"""``fedrisk study``: check a study file, show a study, or export the schema for an editor."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("study", help="check, show or describe a study")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="check a study file and list its errors")
    check.add_argument("file", metavar="FILE")
    check.add_argument(
        "--tables", action="store_true", help="also run the data steps over the hospitals' tables"
    )
    check.add_argument(
        "--source", metavar="PATH|URL", help="a table, or a folder of tables (implies --tables)"
    )
    actions.add_parser("schema", help="print the JSON Schema of study files")
    show = actions.add_parser("show", help="print a study with all its defaults, as JSON")
    show.add_argument("name", metavar="NAME", help="name or file")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Check or show a study, or print the schema.

    Returns:
        0, or 2 where a table is not what the study says.

    Raises:
        StudyError: The study is unknown or not valid.
        FedriskError: The one table that is dealt out cannot be read.
    """
    from tasks.run.known_studies import find_known_study
    from tasks.study import Study, read_study

    if args.action == "schema":
        schema = Study.model_json_schema()
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["title"] = "fedrisk study"
        print(json.dumps(schema, indent=2, ensure_ascii=False))
    elif args.action == "check":
        study = read_study(Path(args.file))
        hospitals, features = len(study.hospitals), len(study.features)
        print(
            f"{args.file}: sound: study {study.name}, {hospitals} hospitals, "
            f"{len(study.columns)} columns ({features} features), {study.federation.strategy}, "
            f"{study.federation.rounds} rounds."
        )
        if args.tables or args.source:
            return _check_tables(Path(args.file), args.source, settings)
    else:
        study = read_study(find_known_study(args.name, settings))
        print(json.dumps(study.model_dump(mode="json"), indent=2, ensure_ascii=False))
    return 0


def _check_tables(file: Path, source: str | None, settings: Settings) -> int:
    from tasks.data.table_check import check_tables
    from tasks.errors import ExitCode

    sound = True
    for found in check_tables(file, source, settings):
        print(found, flush=True)
        sound = sound and not found.error
    return 0 if sound else ExitCode.BAD_INPUT
