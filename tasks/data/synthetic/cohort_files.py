"""Write the synthetic cohort as the hospitals' raw tables."""

from __future__ import annotations

from typing import Any

from tasks.data.one_table import write_csv
from tasks.run.step import Context, Result
from tasks.study import canonical


def deal_cohort(context: Context, source: str) -> Result:
    """Make the study's cohort and write one raw table a hospital that takes part.

    The whole cohort is made whichever hospitals take part, so that a hospital's patients are the
    same in every run of one seed.

    Args:
        context: The run.
        source: The source's name for the manifest.
    """
    from tasks.data.synthetic.cohort import cohort

    study = context.study
    made = cohort(study, seed=study.seed)
    folder = context.run.folder("deal")
    positive = {canonical(value) for value in study.target.positive}
    markers = {
        name: column.missing[0] if column.missing else "" for name, column in study.columns.items()
    }
    hospitals: dict[str, dict[str, int]] = {}
    files: dict[str, str] = {}
    wanted = 0.0
    for name, table in made.tables.items():
        fields = [str(field) for field in table.columns]
        rows = [
            [_text(value, markers.get(field, "")) for field, value in zip(fields, row, strict=True)]
            for row in table.itertuples(index=False, name=None)
        ]
        place = fields.index(study.target.column)
        positives = sum(canonical(row[place]) in positive for row in rows)
        hospitals[name] = {"rows": len(rows), "positives": positives}
        share = study.hospitals[name].share
        wanted += len(rows) * (share.positive_rate if share else 0.0)
        if name in context.plan.hospitals:
            file = folder / f"{name}.csv"
            write_csv(file, study.source, fields, rows)
            files[name] = context.run.relative(file)
    positives = sum(counts["positives"] for counts in hospitals.values())
    figures: dict[str, Any] = {
        "source": source,
        "rows": sum(counts["rows"] for counts in hospitals.values()),
        "positives": positives,
        "hospitals": hospitals,
        "scale": positives / wanted if wanted else 1.0,
        "oracle_auroc": float(made.oracle_auroc),
    }
    return Result(files=files, figures=figures)


def _text(value: object, missing: str) -> str:
    """A raw value as it stands in a table; pandas has several words for "none"."""
    if value is None or value != value or str(value) == "<NA>":
        return missing
    return str(value)
