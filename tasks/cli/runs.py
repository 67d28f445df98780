"""``fedrisk runs``: list the runs of this home."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("runs", help="list the runs with their state and AUROC")
    parser.add_argument("--study", metavar="NAME", help="of this study only")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print one line per run, the newest last."""
    rows: list[tuple[str, ...]] = [("run", "study", "source", "state", "AUROC", "champion")]
    rows += [
        _row(path.parent.name, settings)
        for path in sorted(settings.runs.glob("*/plan.json"), key=lambda p: p.stat().st_mtime)
    ]
    if args.study:
        rows = [row for row in rows if row[1] in ("study", args.study)]
    if len(rows) == 1:
        print(f"no runs in {settings.runs}")
        return 0
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)))
    return 0


def _row(name: str, settings: Settings) -> tuple[str, ...]:
    from tasks.cli.run_summary import failed_step
    from tasks.run.ending import read_endings
    from tasks.run.plan import read_plan
    from tasks.run.stored_run import open_run

    folder = open_run(settings, name)
    plan = read_plan(folder)
    evaluated, promoted = folder.find("evaluate"), folder.find("promote")
    auroc = evaluated.figures.get("federated", {}).get("auroc") if evaluated else None
    failed = failed_step(folder, read_endings(folder))
    if promoted is not None:
        state = "done"
    elif failed is not None:
        of = f" of {failed.hospital}" if failed.hospital else ""
        state = f"{failed.step}{of} failed ({failed.code})"
    else:
        state = "not finished"
    champion = promoted.figures.get("model_version") if promoted else None
    is_champion = promoted is not None and promoted.figures.get("champion")
    return (
        name,
        plan.study.name,
        plan.source_name.rsplit("/", 1)[-1],
        state,
        f"{auroc:.4f}" if auroc is not None else "",
        f"version {champion}" if is_champion else "",
    )
