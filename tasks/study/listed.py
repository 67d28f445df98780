"""``hospitals: {from: COLUMN, min_rows: N}``: a hospital for each site, listed in a file beside.

Who takes part is written down before a run and changes by a command alone (``fedrisk study
hospitals``): a new value in a table's column is no party with a key and a say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from tasks.study.base import Count, Part


class Listed(Part):
    """A hospital for each site of one table (source kind ``site_column``)."""

    column: Annotated[str, Field(alias="from", min_length=1)]
    """The column that names the site."""
    min_rows: Count = 1
    """Sites of fewer rows are no hospital, and their rows are left out."""


def list_of(study: Path) -> Path:
    """The file beside a study that lists its hospitals."""
    return study.with_name(f"{study.stem}.hospitals.json")


def listed(tree: dict[str, Any]) -> Listed | None:
    """What a study file says of listed hospitals; None where it names each.

    Args:
        tree: The file's content.

    Raises:
        ValidationError: It is not sound; places are those below ``hospitals``.
    """
    given = tree.get("hospitals")
    # A hospital may be called so too, and is no text.
    if not isinstance(given, dict) or not isinstance(given.get("from"), str):
        return None
    return Listed.model_validate(given)


def with_hospitals(study: Path, tree: dict[str, Any], asked: Listed) -> dict[str, Any]:
    """Put the listed hospitals in the place of the wish for them.

    Args:
        study: The study's file.
        tree: Its content.
        asked: What it says of its hospitals.

    Raises:
        ValueError: There is no list, or it is of another wish.
    """
    advice = f"run `fedrisk study hospitals {study}`"
    try:
        found = json.loads(list_of(study).read_text(encoding="utf-8"))
        kept, hospitals = Listed.model_validate(found["asked"]), found["hospitals"]
    except OSError:
        raise ValueError(f"its sites are not listed yet: {advice}") from None
    except (ValueError, KeyError, TypeError, ValidationError):
        raise ValueError(f"{list_of(study)} is no list of hospitals: {advice} again") from None
    if kept != asked:
        raise ValueError(f"{list_of(study)} was made for another column or min_rows: {advice}")
    source = tree.get("source")
    if isinstance(source, dict):
        source = {"site_column": asked.column, "other_sites": "ignore", **source}
        if source["site_column"] != asked.column:
            raise ValueError("source.site_column names another column; leave it out")
    return {**tree, "hospitals": hospitals, "source": source}


def list_text(asked: Listed, hospitals: dict[str, str]) -> bytes:
    """The file that lists hospitals.

    Args:
        asked: What the study says of them.
        hospitals: Their names and sites.
    """
    wish = asked.model_dump(by_alias=True)
    sites = {name: {"title": site, "site": site} for name, site in hospitals.items()}
    text = json.dumps({"asked": wish, "hospitals": sites}, indent=2, ensure_ascii=False)
    return f"{text}\n".encode()
