"""List the sites of one table as a study's hospitals."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tasks.data.fetch import local_copy, public_name
from tasks.data.one_table import open_table
from tasks.errors import DataError, StudyError
from tasks.files import write_atomically
from tasks.run.sources import resolve_source
from tasks.settings import Settings
from tasks.study import Listed, Study, read_study
from tasks.study.base import BLANKS, canonical, folded
from tasks.study.listed import list_of, list_text

ANY = ("hospitals={a: {site: a}, b: {site: b}}", "federation.min_hospitals=2")
"""Two hospitals that stand for those that are not known yet."""


def hospital_names(sites: Iterable[str]) -> list[str]:
    """A name for each site, that a folder, a bucket and a pod can have.

    Args:
        sites: As a table or its file is called; no two alike.
    """
    names: list[str] = []
    for each in sites:
        slug = re.sub(r"[^a-z0-9]+", "-", each.lower()).strip("-")[:30]
        slug = slug if slug[:1].isalpha() else f"site-{slug or len(names) + 1}"
        names.append(slug if slug not in names else f"{slug}-{len(names) + 1}")
    return names


def list_hospitals(file: Path, asked: Listed, given: str | None, settings: Settings) -> str:
    """Count the sites of a study's table, and write the list of those that become hospitals.

    Args:
        file: The study's file.
        asked: What it says of its hospitals.
        given: A path or URL in place of the study's ``source.path``.
        settings: For a table that Spark alone reads.

    Returns:
        What was found, in a sentence.

    Raises:
        StudyError: The study is not sound, or has too few sites.
        DataError: The table is not what the study says.
    """
    study = read_study(file, (*ANY, f"source.site_column={json.dumps(asked.column)}"))
    if study.source.kind != "site_column":
        raise StudyError(
            f"{file}: hospitals.from needs source.kind: site_column, not {study.source.kind}."
        )
    source = resolve_source(study, file, given, list(study.hospitals), settings)
    if source is None:
        raise StudyError(f"{file}: a synthetic cohort has no sites; name each hospital.")
    rows = _rows_by_site(source, study, asked.column, settings)
    large = {site: n for site, n in rows.items() if n >= asked.min_rows}
    left = len(rows) - len(large)
    if len(large) < 2:
        raise StudyError(
            f"{file}: column {asked.column} names {len(rows)} sites, of which {len(large)} have "
            f"{asked.min_rows} rows or more. A federation needs two: look at hospitals.from and "
            "hospitals.min_rows."
        )
    hospitals = dict(zip(hospital_names(large), large, strict=True))
    write_atomically(list_of(file), list_text(asked, hospitals))
    rest = f"; {left} sites of fewer than {asked.min_rows} rows are none" if left else ""
    return f"{list_of(file)}: {len(large)} hospitals with {sum(large.values())} rows{rest}."


def _rows_by_site(source: str, study: Study, column: str, settings: Settings) -> dict[str, int]:
    """Rows of each site, the largest first; one that is spelled in several ways is one."""
    where = f"table {public_name(source)}"
    with tempfile.TemporaryDirectory(prefix="fedrisk-sites-") as temporary:
        scratch = Path(temporary)
        path = local_copy(source, scratch, where)
        texts = open_table(path, study, where, settings, scratch).values([column])[column]
    written: dict[str, Counter[str]] = {}
    for text, rows in Counter(canonical(each.strip(BLANKS)) for each in texts).items():
        if text:
            written.setdefault(folded(text), Counter())[text] += rows
    if not written:
        raise DataError(f"{where}: column {column} is empty. Check hospitals.from.")
    counted = ((each.most_common(1)[0][0], each.total()) for each in written.values())
    return dict(sorted(counted, key=lambda site: (-site[1], site[0])))
