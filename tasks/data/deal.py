"""Step ``deal``: give each hospital its raw table where a study starts from one table or cohort.

Three ways: hospitals that own tables need nothing; a column that says whose a row is splits the
table; a non-IID plan deals it out (``sharing``). Without a table the plan's synthetic cohort
stands in. Nothing is lost and nothing judged: a row that cannot be right goes to a hospital too,
whose validation quarantines it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.data.fetch import local_copy, public_name
from tasks.data.one_table import OneTable, open_table
from tasks.data.sharing import Deal, Patients, columns_of_interest, share_out
from tasks.data.synthetic.cohort_files import deal_cohort
from tasks.errors import DataError
from tasks.run.step import Context, Result
from tasks.study import Study, canonical
from tasks.study.spelling import spelling_of

OTHER_SITE = ""
"""The owner of rows that no hospital of the study has."""


def deal(context: Context) -> Result:
    """Leave one raw table a hospital in ``files/deal/``.

    Args:
        context: The run.

    Raises:
        DataError: The table is not what the study says, or a row belongs to no hospital.
    """
    plan, study = context.plan, context.study
    source = public_name(plan.source_name)
    if study.source.kind == "own":
        return Result(figures={"source": source})
    if plan.source is None:
        return deal_cohort(context, source)
    folder = context.run.folder("deal")
    with tempfile.TemporaryDirectory(prefix="fedrisk-deal-") as temporary:
        where = f"table {source}"
        scratch = Path(temporary)
        path = local_copy(plan.source, scratch, where)
        table = open_table(path, study, where, context.settings, scratch)
        if study.source.kind == "site_column":
            belongs, scale = _by_site(table, study, where), None
        else:
            dealt = _by_share(table, study, where)
            belongs, scale = dealt.hospitals, dealt.scale
        files = table.write(belongs, dict.fromkeys(plan.hospitals, folder))
        figures = _figures(table, belongs, study, source)
    if scale is not None:
        figures["scale"] = scale
    return Result(
        files={name: context.run.relative(file) for name, file in files.items()}, figures=figures
    )


def _by_site(table: OneTable, study: Study, where: str) -> list[str]:
    column = str(study.source.site_column)
    spelling = spelling_of((str(h.site), name) for name, h in study.hospitals.items())
    texts = table.values([column])[column]
    sites = [spelling.meant(text) for text in texts]
    unknown = sites.count(None)
    if unknown and study.source.other_sites == "refuse":
        kinds = len({spelling.known(t) for t, site in zip(texts, sites, strict=True) if not site})
        raise DataError(
            f"{where}: column {column} of {unknown} of {len(sites)} rows names no hospital of the "
            f"study ({kinds} unknown values). Known: "
            f"{', '.join(str(h.site) for h in study.hospitals.values())}. Correct them, or set "
            "source.other_sites: ignore."
        )
    belongs = [site or OTHER_SITE for site in sites]
    empty = [name for name in study.hospitals if name not in belongs]
    if empty:
        raise DataError(
            f"{where}: column {column} gives no row to {', '.join(empty)}. Check hospitals.*.site, "
            "or list the sites again (`fedrisk study hospitals`)."
        )
    return belongs


def _by_share(table: OneTable, study: Study, where: str) -> Deal:
    """Deal by patient, so that the rows of an id that stands there twice stay together."""
    columns = columns_of_interest(study)
    named = [study.id] if study.id else []
    values = table.values([*named, study.target.column, *columns])
    keys = [text.strip() for text in values[study.id]] if study.id else table.digests()
    if study.id:
        # A row without an id is a patient of its own; validation will quarantine it.
        digests = table.digests() if "" in keys else []
        keys = [key or f"row {digests[i]}" for i, key in enumerate(keys)]
    positive = _is_positive(study)
    outcome = list(map(positive, values[study.target.column]))
    index: dict[str, int] = {}
    for key in keys:
        index.setdefault(key, len(index))
    first: dict[int, int] = {}
    has_outcome = [False] * len(index)
    for row, key in enumerate(keys):
        first.setdefault(index[key], row)
        has_outcome[index[key]] |= outcome[row]
    rows = [first[i] for i in range(len(index))]
    patients = Patients(
        keys=list(index),
        positive=has_outcome,
        values={column: [values[column][row] for row in rows] for column in columns},
    )
    try:
        dealt = share_out(study, patients)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return Deal([dealt.hospitals[index[key]] for key in keys], dealt.scale)


def _figures(table: OneTable, belongs: list[str], study: Study, source: str) -> dict[str, Any]:
    positive = {name: _is_positive(study, name) for name in study.hospitals}
    target = table.values([study.target.column])[study.target.column]
    others = belongs.count(OTHER_SITE)
    rows, positives = Counter(belongs), Counter[str]()
    for name, text in zip(belongs, target, strict=True):
        positives[name] += name != OTHER_SITE and positive[name](text)
    return {
        "source": source,
        "rows": len(belongs) - others,
        **({"other_sites": others} if others else {}),
        "positives": sum(positives[name] for name in study.hospitals),
        "hospitals": {
            name: {"rows": rows[name], "positives": positives[name]} for name in study.hospitals
        },
    }


def _is_positive(study: Study, hospital: str | None = None) -> Callable[[str], bool]:
    """A test of whether a text of the target is a positive outcome."""
    spelling = study.spelling(study.target.column, hospital)
    positive = {canonical(value) for value in study.target.positive}
    return lambda text: spelling.known(text) in positive
