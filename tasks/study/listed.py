"""``hospitals: {from: COLUMN, min_rows: N}``: a hospital for each site, listed in a file beside.

Who takes part is written down before a run and changes by a command alone (``fedrisk study
hospitals``): a new value in a table's column is no party with a key and a say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from tasks.study.base import Count, Part


class Listed(Part):
    """A hospital for each site of one table (source kind ``site_column``)."""

    column: Annotated[str, Field(alias="from", min_length=1)]
    """The column that names the site."""
    min_rows: Count = 30
    """Sites of fewer rows are no hospital, and their rows are left out."""


class HospitalList(Part):
    """The list of a study's hospitals, as it is kept beside the study."""

    asked: Listed
    """What the study said when it was made."""
    hospitals: dict[str, str]
    """Names of the hospitals, and their sites."""
    former: dict[str, str] = Field(default_factory=dict)
    """Those of lists before that are none now: their names, keys and tables are no one else's."""

    def file_text(self) -> bytes:
        """The file's content."""
        return f"{self.model_dump_json(by_alias=True, indent=2)}\n".encode()


def list_of(study: Path) -> Path:
    """The file beside a study that lists its hospitals."""
    return study.with_name(f"{study.name}.hospitals.json")


def listed(given: Any) -> Listed | None:
    """What a study file says of listed hospitals; None where it names each.

    Args:
        given: Its ``hospitals``.

    Raises:
        ValidationError: It is not sound; places are those below ``hospitals``.
    """
    # A hospital may be called so too, and is no text.
    if not isinstance(given, dict) or not isinstance(given.get("from"), str):
        return None
    return Listed.model_validate(given)


def read_list(study: Path) -> HospitalList | None:
    """Read the list of a study's hospitals; None where there is none yet.

    Args:
        study: The study's file.

    Raises:
        ValueError: The file is no such list.
    """
    file = list_of(study)
    try:
        return HospitalList.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror})") from None
    except ValidationError:
        raise ValueError(
            f"{file} is no list of hospitals: restore it, or delete it and run `fedrisk study "
            f"hospitals {study}`"
        ) from None


def with_hospitals(tree: dict[str, Any], found: HospitalList) -> dict[str, Any]:
    """Keys of a study with the listed hospitals in the place of the wish for them.

    Args:
        tree: The file's content.
        found: The list.

    Raises:
        ValueError: The source names another column.
    """
    sites = {name: {"title": site, "site": site} for name, site in found.hospitals.items()}
    source = tree.get("source")
    if not isinstance(source, dict):
        return {"hospitals": sites}
    source = {"site_column": found.asked.column, "other_sites": "ignore", **source}
    if source.get("kind") != "site_column" or source["site_column"] != found.asked.column:
        raise ValueError(
            "it needs source.kind: site_column, and no source.site_column of another name"
        )
    return {"hospitals": sites, "source": source}
