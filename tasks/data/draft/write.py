"""Write a draft as a commented study file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path

from tasks.data.draft.draft import Drafted, cleaned
from tasks.data.draft.looks import Looks
from tasks.data.rules import RESERVED
from tasks.data.sites import hospital_names
from tasks.lake.tables import UNUSUAL

DECIDE = "# DECIDE: "
"""What stands before everything that a person must look at."""
_UNIT = re.compile(r"^(.*?)[\s_]*[\[(]([^\])]+)[\])]\s*$")
_MODALITIES = {
    "demographics": r"age|sex|gender|race|ethnic|marit|married|birth|educat|residence|income",
    "lifestyle": r"smok|tobacco|alcohol|drink|exercise|activity|diet|work|job|occupation",
    "history": r"histor|hx|prior|previous|past|hypertension|diabet|disease|famil|cancer|comorb",
}


def study_text(drafted: Drafted, name: str, folder: Path) -> str:
    """The study's YAML.

    Args:
        drafted: What stands in it.
        name: The study's name.
        folder: Where the file will be; paths are relative to it where they can be.
    """
    several = len(drafted.tables) > 1
    lines = [
        f"# A draft of {len(drafted.tables)} table{'s'[:several]}, "
        f"{sum(table.rows for table in drafted.tables)} rows. What fedrisk cannot know is marked",
        f"# {DECIDE.removeprefix('# ').strip()} look at it before the first run.",
        f"name: {name}",
        f"title: {name.replace('-', ' ').capitalize()}",
        f"{DECIDE}may rows be pooled for a centralized baseline? allowed or forbidden",
        f"pooling: {'forbidden' if several else 'allowed'}",
        '# Cron for a scheduled retraining, such as "0 3 * * 0".',
        "schedule: null",
    ]
    lines += [f"{DECIDE}{each}" for each in drafted.decided if each.startswith("id")]
    if drafted.id:
        lines.append(f"id: {_text(drafted.id)}")
    else:
        lines.append("# No id: a patient is identified by the row's content.")
    lines += [
        f"{DECIDE}{each}" for each in drafted.decided if each.startswith(("target", "positive"))
    ]
    negative = [v for v in drafted.target.values if v not in drafted.positive]
    lines += [
        "target:",
        f"  column: {_text(drafted.target.name)}",
        f"  positive: {_list(drafted.positive)}",
        f"  negative: {_list(negative)}",
        *([f"  missing: {_list(drafted.target.markers)}"] if drafted.target.markers else []),
        "",
        f"{DECIDE}does a column tell the outcome (known only after it)? Take it out.",
        *(f"{DECIDE}{each}" for each in drafted.decided if each.startswith("outcome")),
        f"{DECIDE}ranges hold what is possible, not only what these tables have; modality too",
        "columns:",
    ]
    taken = {n.lower() for n in (drafted.id, drafted.site, drafted.target.name) if n}
    for header, looks in drafted.columns.items():
        own, unit = _named(header, taken)
        taken.add(own.lower())
        lines += _column(own, header, unit, looks, drafted)
    if drafted.left_out:
        lines += ["", "# Left out, and so ignored in the tables:"]
        lines += [f"#   {_text(header)}: {why}" for header, why in drafted.left_out.items()]
    lines += ["", *_source(drafted, folder), "", *_hospitals(drafted, folder), ""]
    lines += [
        "# The key of the split into train, validation and test; change it for another split.",
        f"split: {{key: {name}}}",
        "federation: {min_hospitals: 2}",
    ]
    return "\n".join(lines) + "\n"


def _column(own: str, header: str, unit: str, looks: Looks, drafted: Drafted) -> list[str]:
    words = [f"type: {looks.kind}", f"modality: {_modality(header)}"]
    if own != header:
        words.append(f"aliases: {_list([header])}")
    if unit:
        words.append(f"unit: {_text(unit)}")
    if looks.kind in ("number", "integer"):
        low, high = outwards(looks.low, looks.high)
        words.append(f"range: [{low:.12g}, {high:.12g}]")
    if looks.kind == "category":
        words.append(f"categories: {_list(looks.values)}")
    if looks.markers:
        words.append(f"missing: {_list(looks.markers)}")
    if looks.missing:
        share = max(looks.worst, looks.missing / looks.rows if len(drafted.tables) == 1 else 0.0)
        words.append(f"max_missing: {min(1.0, math.ceil((1.5 * share + 0.02) * 20) / 20):g}")
    absent = [
        hospital
        for hospital, table in zip(_names(drafted), drafted.tables, strict=False)
        if len(drafted.tables) > 1
        and (header not in table.looks or table.looks[header].missing == table.rows)
    ]
    if absent:
        words.append(f"optional_at: {_list(absent)}")
    lines = []
    if looks.kind == "category" and all(re.fullmatch(r"-?[0-9]+", v) for v in looks.values):
        lines.append(f"  {DECIDE}codes, or a number (type: integer, with a range)?")
    return [*lines, f"  {_text(own)}: {{{', '.join(words)}}}"]


def outwards(low: float, high: float) -> tuple[float, float]:
    """Bounds that are round, and wider by a tenth, than what was seen."""
    if low == high:
        return (low - 1, high + 1)
    step = 10.0 ** math.floor(math.log10((high - low) / 5))
    margin = (high - low) / 10
    below, above = (math.floor((low - margin) / step), math.ceil((high + margin) / step))
    # No negative age where none was seen.
    return (0.0 if low >= 0 > below else below * step, above * step)


def _named(header: str, taken: Iterable[str]) -> tuple[str, str]:
    """A name for a column in the study, and its unit if the header has one."""
    found = _UNIT.match(header)
    bare, unit = (found.group(1).strip(), found.group(2).strip()) if found else (header, "")
    own = bare if bare and not set(bare) & UNUSUAL else cleaned(bare) or "column"
    reserved = {each.lower() for each in RESERVED} | {"hospital"}
    name, number = own, 2
    while name.lower() in {*taken, *reserved}:
        name, number = f"{own}_{number}", number + 1
    return name, unit


def _modality(header: str) -> str:
    words_of = cleaned(header)
    return next((m for m, words in _MODALITIES.items() if re.search(words, words_of)), "clinical")


def _source(drafted: Drafted, folder: Path) -> list[str]:
    first = drafted.tables[0]
    kind = "own" if len(drafted.tables) > 1 else "site_column" if drafted.site else "deal"
    lines = [f"{DECIDE}{each}" for each in drafted.decided if each.startswith("site")]
    lines += ["source:", f"  kind: {kind}", f"  format: {first.source.format}"]
    if kind != "own":
        lines.append(f"  path: {_path(first.path, folder)}")
    if drafted.site:
        lines.append(f"  site_column: {_text(drafted.site)}")
        lines.append("  # Sites with too few rows, positives or negatives are left out.")
        lines.append("  other_sites: ignore")
    if first.source.format == "csv":
        source = first.source
        if not source.header:
            lines += ["  header: false", f"  {DECIDE}the names of the columns, in order"]
            lines.append(f"  fields: {_list(source.fields)}")
        if source.delimiter != ",":
            lines.append(f"  delimiter: {_text(source.delimiter)}")
        if source.encoding != "utf-8":
            lines.append(f"  encoding: {source.encoding}")
        if source.skip:
            lines.append(f"  skip: {source.skip}")
        marks = {(c.decimal, c.thousands) for c in drafted.columns.values()} - {(".", "")}
        decimal = {decimal for decimal, _ in marks}
        if decimal:
            lines.append(f"  {DECIDE}how numbers are written: 1,234 may be a thousand or a decimal")
            mark = sorted(decimal)[0]
            lines.append(f"  decimal: {_text(mark)}")
            thousands = {t for d, t in marks if t and d == mark}
            if thousands:
                lines.append(f"  thousands: {_text(thousands.pop())}")
    return lines


def _hospitals(drafted: Drafted, folder: Path) -> list[str]:
    names = _names(drafted)
    lines = ["hospitals:"]
    if len(drafted.tables) > 1:
        paths = [table.path for table in drafted.tables]
        return lines + [
            f"  {name}: {{path: {_path(path, folder)}}}"
            for name, path in zip(names, paths, strict=True)
        ]
    if drafted.site:
        return lines + [
            f"  {name}: {{site: {_text(site)}}}  # {rows} rows"
            for name, (site, rows) in zip(names, drafted.sites.items(), strict=True)
        ]
    [table] = drafted.tables
    outcome = dict(zip(drafted.target.values, drafted.target.counts, strict=True))
    rate = sum(outcome[value] for value in drafted.positive) / max(1, sum(outcome.values()))
    lines.insert(0, f"{DECIDE}one table without a site column is dealt out, for a demonstration")
    return lines + [
        f"  {name}: {{share: {{rows: {max(1, table.rows // 3)}, positive_rate: {rate:.4f}}}}}"
        for name in names
    ]


def _names(drafted: Drafted) -> list[str]:
    """Names of the hospitals."""
    if len(drafted.tables) > 1:
        wanted = _apart([table.path.name for table in drafted.tables])
    else:
        wanted = list(drafted.sites) or ["hospital-1", "hospital-2", "hospital-3"]
    return hospital_names(wanted)


def _apart(names: list[str]) -> list[str]:
    """What distinguishes files: the words of their names that not all have."""
    words = [re.split(r"[._ -]+", name) for name in names]
    common = set(words[0]).intersection(*words)
    return ["-".join(w for w in each if w not in common) for each in words]


def _path(path: Path, folder: Path) -> str:
    absolute, start = path.absolute(), folder.absolute()
    inside = absolute.is_relative_to(start)
    return _text(str(absolute.relative_to(start) if inside else absolute))


def _list(texts: Iterable[str]) -> str:
    # Quoted, so that YAML keeps each as it is: no, 01, 1.0, null.
    return "[" + ", ".join(json.dumps(text, ensure_ascii=False) for text in texts) + "]"


def _text(text: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", text)
    words = {"yes", "no", "true", "false", "on", "off", "null", "y", "n"}
    return text if plain and text.lower() not in words else json.dumps(text, ensure_ascii=False)
