"""``fedrisk synth``: write a study's synthetic cohort as one CSV per hospital, with its study."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.study import Study

STUDY = "study.yaml"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "synth",
        help="write a synthetic cohort, one CSV per hospital",
        description="Write a study's synthetic cohort: one CSV per hospital, the study of these "
        "tables (study.yaml, for fedrisk run --study), and cohort.json with sizes, counts and the "
        "AUROC of the true risk. It contains no data of real patients.",
    )
    parser.add_argument("--study", default="stroke", help="name or file (default: stroke)")
    parser.add_argument("--out", type=Path, required=True, help="folder to make; new or empty")
    parser.add_argument("--patients", type=int, help="total patients (default: the study's)")
    parser.add_argument("--hospitals", type=int, help="number of hospitals (default: the study's)")
    parser.add_argument("--seed", type=int, help="default: the study's seed")
    parser.add_argument(
        "--name",
        help="of the study that is written (default: the study's with the hospitals' number)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make the cohort and write its folder atomically.

    Args:
        args: ``study``, ``out``, ``patients``, ``hospitals``, ``seed`` and ``name``.
        settings: Where named studies are.

    Returns:
        The exit code, 0.

    Raises:
        SettingsError: The folder is not empty or cannot be made, or a number is out of range.
        StudyError: There is no such study, it has no synthetic cohort, or it does not fit so many
            hospitals.
    """
    from tasks.data.synthetic.cohort import cohort
    from tasks.onboarding.folders import new_folder
    from tasks.study import find_study, read_study

    out: Path = args.out.absolute()
    file = find_study(args.study, settings.studies)
    study = read_study(file)
    seed = study.seed if args.seed is None else args.seed
    with new_folder(out) as folder:
        made = cohort(study, patients=args.patients, hospitals=args.hospitals, seed=seed)
        summary = {
            "study": study.name,
            "seed": seed,
            "patients": sum(len(table) for table in made.tables.values()),
            "oracle_auroc": made.oracle_auroc,
            "hospitals": {
                name: {
                    "file": f"{name}.csv",
                    "patients": len(table),
                    "positives": made.positives[name],
                    "oracle_auroc": made.oracle_within.get(name),
                }
                for name, table in made.tables.items()
            },
        }
        for name, table in made.tables.items():
            table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        own = args.name or f"{study.name}-{len(made.tables)}"
        text = _study_of(file, study, own, seed, list(made.tables))
        (folder / STUDY).write_text(text, encoding="utf-8")
        read_study(folder / STUDY)
        (folder / "cohort.json").write_text(json.dumps(summary, indent=2) + "\n")
        folder.chmod(0o755)
    for name, table in made.tables.items():
        print(f"{name}  {len(table):>9,} patients  {made.positives[name]:>7,} positive")
    print(f"AUROC of the true risk: {made.oracle_auroc:.3f}. Written to {out}.")
    print(f"To train on it: fedrisk run --study {out / STUDY}")
    return 0


def _study_of(file: Path, study: Study, name: str, seed: int, hospitals: Sequence[str]) -> str:
    """A study's text with hospitals that have tables of their own in place of its cohort's."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 100
    tree = yaml.load(file)
    # Under the study's own name its tables and models would mix with these.
    former = tree["hospitals"]
    tree |= {
        "name": name,
        "title": f"{tree['title']}, {len(hospitals)} hospitals of a synthetic cohort",
        "seed": seed,
        "schedule": None,
        "source": {"kind": "own", "format": "csv"},
        "hospitals": {
            each: {
                **{k: v for k, v in former.get(each, {}).items() if k == "title"},
                "path": f"{each}.csv",
            }
            for each in hospitals
        },
    }
    if study.federation.min_hospitals > len(hospitals):
        tree.setdefault("federation", {})["min_hospitals"] = len(hospitals)
    for column in tree["columns"].values():
        absent = [each for each in column.get("optional_at", ()) if each not in hospitals]
        for each in absent:
            column["optional_at"].remove(each)
    text = io.StringIO()
    yaml.dump(tree, text)
    return text.getvalue()
