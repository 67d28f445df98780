"""List the sites of one table as a study's hospitals."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

from tasks.data.draft.looks import MARKERS
from tasks.data.fetch import local_copy, public_name
from tasks.data.one_table import open_table
from tasks.errors import DataError, StudyError
from tasks.files import write_atomically
from tasks.run.sources import resolve_source
from tasks.settings import Settings
from tasks.study import Study, asked_sites, read_study
from tasks.study.base import RESERVED_NAMES, YAML_WORDS, canonical, folded
from tasks.study.listed import HospitalList, Listed, list_of, read_list
from tasks.study.reading import read_table_study

NOT_KNOWN = MARKERS | {"unknown"}
"""What a site column holds where the site is not known, folded."""


def hospital_names(sites: Iterable[str], taken: Container[str] = ()) -> list[str]:
    """A name for each site, that a folder, a bucket and a pod can have.

    Args:
        sites: As a table or its file is called; no two alike.
        taken: Names that others have.
    """
    names: list[str] = []
    for each in sites:
        slug = re.sub(r"[^a-z0-9]+", "-", each.lower())[:30].strip("-")
        if not slug[:1].isalpha() or slug in RESERVED_NAMES | YAML_WORDS:
            slug = f"site-{slug}".rstrip("-")
        free = (name for name in _numbered(slug) if name not in names and name not in taken)
        names.append(next(free))
    return names


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def list_hospitals(
    file: Path, settings: Settings, given: str | None = None, overrides: Sequence[str] = ()
) -> str:
    """Count the sites of a study's table, and write the list of those that become hospitals.

    A site that was listed before keeps its name, whatever has become of its rows.

    Args:
        file: The study's file.
        settings: For a table that Spark alone reads.
        given: A path or URL in place of the study's ``source.path``.
        overrides: Of the study.

    Returns:
        What was found, in a sentence.

    Raises:
        StudyError: The study is not sound, names its hospitals, or has too few sites; or the list
            cannot be written.
        DataError: The table is not what the study says.
    """
    asked = asked_sites(file)
    if asked is None:
        raise StudyError(
            f"{file}: it names each hospital. Write `hospitals: {{from: COLUMN, min_rows: N}}` to "
            "have them listed from a table."
        )
    study = read_table_study(file, asked, overrides)
    # It is read here, whichever machine reads it later.
    here = settings.model_copy(update={"launcher": "process"})
    source = resolve_source(study, file, given, list(study.hospitals), here)
    rows = _rows_by_site(str(source), study, asked.column, settings)
    large = {site: n for site, n in rows.items() if n >= asked.min_rows}
    try:
        before = read_list(file)
    except ValueError as error:
        raise StudyError(f"{error}.") from None
    found = _named(large, asked, before)
    # Before it is kept: the study may want more hospitals than there are.
    read_study(file, overrides, found)
    try:
        write_atomically(list_of(file), found.file_text())
    except OSError as error:
        raise StudyError(f"{list_of(file)} cannot be written ({error.strerror}).") from None
    left = len(rows) - len(large)
    rest = f"; {left} sites of fewer than {asked.min_rows} rows are none" if left else ""
    number, total = len(found.hospitals), sum(large.values())
    return f"{list_of(file)}: {number} hospitals with {total} rows{rest}."


def _named(sites: Iterable[str], asked: Listed, before: HospitalList | None) -> HospitalList:
    """The list of sites, with the names that they had before."""
    known = {**before.former, **before.hospitals} if before else {}
    by_site = {folded(site): name for name, site in known.items()}
    sites = sorted(sites, key=folded)
    new = [site for site in sites if folded(site) not in by_site]
    by_site |= zip(map(folded, new), hospital_names(new, known), strict=True)
    hospitals = {by_site[folded(site)]: site for site in sites}
    former = {name: site for name, site in known.items() if name not in hospitals}
    return HospitalList(asked=asked, hospitals=hospitals, former=former)


def _rows_by_site(source: str, study: Study, column: str, settings: Settings) -> dict[str, int]:
    """Rows of each site; one that is spelled in several ways is one."""
    where = f"table {public_name(source)}"
    with tempfile.TemporaryDirectory(prefix="fedrisk-sites-") as temporary:
        scratch = Path(temporary)
        path = local_copy(source, scratch, where)
        texts = open_table(path, study, where, settings, scratch).values([column])[column]
    written: dict[str, Counter[str]] = {}
    for text, rows in Counter(canonical(each) for each in texts).items():
        if text and folded(text) not in NOT_KNOWN:
            written.setdefault(folded(text), Counter())[text] += rows
    if not written:
        raise DataError(f"{where}: column {column} is empty. Check hospitals.from.")
    return {each.most_common(1)[0][0]: each.total() for each in written.values()}
