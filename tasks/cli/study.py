"""``fedrisk study``: draft or check a study file, show a study, or export the schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.cli.run_options import add_hospitals, add_overrides

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
    add_hospitals(check)
    add_overrides(check)
    draft = actions.add_parser("draft", help="write a first study file from the hospitals' tables")
    draft.add_argument("table", nargs="+", metavar="TABLE", help="one a hospital, or one of all")
    draft.add_argument("--target", metavar="COLUMN", help="the outcome (default: guessed)")
    draft.add_argument("--positive", metavar="VALUE", action="append", default=[],
                       help="its positive value; may be repeated")  # fmt: skip
    draft.add_argument("--site", metavar="COLUMN", help="names the hospital, in one table of all")
    draft.add_argument("--id", metavar="COLUMN", help="identifies the patient")
    draft.add_argument("--name", default="draft", help="the study's name (default: draft)")
    draft.add_argument("--out", metavar="FILE", type=Path, help="default: print it")
    sites = actions.add_parser(
        "hospitals", help="list the sites of a table as the hospitals of a study (hospitals.from)"
    )
    sites.add_argument("file", metavar="NAME", help="name or file")
    sites.add_argument("--source", metavar="PATH|URL", help="the table, if not source.path")
    add_overrides(sites)
    actions.add_parser("schema", help="print the JSON Schema of study files")
    show = actions.add_parser("show", help="print a study with all its defaults, as JSON")
    show.add_argument("name", metavar="NAME", help="name or file")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Check, draft or show a study, or print the schema.

    Returns:
        0, or 2 where a table is not what the study says.

    Raises:
        StudyError: The study is unknown or not valid.
        FedriskError: The one table that is dealt out cannot be read.
    """
    from tasks.run.known_studies import find_known_study
    from tasks.study import Listed, Study, read_study

    if args.action == "draft":
        return _draft(args, settings)
    if args.action == "hospitals":
        return _list_hospitals(args, settings)
    if args.action == "schema":
        schema = Study.model_json_schema()
        named, wish = schema["properties"]["hospitals"], Listed.model_json_schema()
        schema["properties"]["hospitals"] = {"anyOf": [wish, named]}
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["title"] = "fedrisk study"
        print(json.dumps(schema, indent=2, ensure_ascii=False))
    elif args.action == "check":
        study = read_study(Path(args.file), args.overrides)
        hospitals, features = len(study.hospitals), len(study.features)
        print(
            f"{args.file}: sound: study {study.name}, {hospitals} hospitals, "
            f"{len(study.columns)} columns ({features} features), {study.federation.strategy}, "
            f"{study.federation.rounds} rounds."
        )
        if args.tables or args.source or args.hospitals:
            return _check_tables(args, settings)
    else:
        study = read_study(find_known_study(args.name, settings))
        print(json.dumps(study.model_dump(mode="json"), indent=2, ensure_ascii=False))
    return 0


def _draft(args: argparse.Namespace, settings: Settings) -> int:
    from tasks.data.draft.draft import Choice, choose
    from tasks.data.draft.table import look_at
    from tasks.data.draft.write import DECIDE, study_text
    from tasks.errors import SettingsError
    from tasks.files import write_atomically

    if args.out is not None and args.out.exists():
        raise SettingsError(f"{args.out} is there already. Name another with --out.")
    choice = Choice(args.target, tuple(args.positive), args.site, args.id)
    folder = args.out.parent if args.out else Path()
    with look_at([Path(each) for each in args.table], settings) as tables:
        text = study_text(choose(tables, choice), args.name, folder)
    if args.out is None:
        print(text, end="")
        return 0
    write_atomically(args.out, text.encode())
    print(f"{args.out}: {text.count(DECIDE)} lines wait for a decision; then run `fedrisk study "
          f"check {args.out} --tables`.")  # fmt: skip
    return 0


def _list_hospitals(args: argparse.Namespace, settings: Settings) -> int:
    from tasks.data.sites import list_hospitals
    from tasks.run.known_studies import find_known_study

    file = find_known_study(args.file, settings)
    print(list_hospitals(file, settings, args.source, args.overrides))
    return 0


def _check_tables(args: argparse.Namespace, settings: Settings) -> int:
    from tasks.data.table_check import check_tables
    from tasks.errors import ExitCode
    from tasks.run.plan import Request

    request = Request(
        study=args.file, source=args.source, hospitals=args.hospitals, overrides=args.overrides
    )
    sound = True
    for found in check_tables(request, settings):
        print(found, flush=True)
        sound = sound and not found.error
    return 0 if sound else ExitCode.BAD_INPUT
