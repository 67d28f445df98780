"""The columns of a hospital's table, and the features derived from them."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tasks.study.base import FLAGS, Codes, Fraction, Part, Texts, canonical, folded

Modality = Literal["demographics", "history", "lifestyle", "clinical"]


class Column(Part):
    """One column as the hospitals deliver it."""

    type: Literal["number", "integer", "flag", "category"]
    """number and integer have a range; flag is yes or no (also true, y, t, 1 and their
    opposites); category has a fixed list."""
    modality: Modality
    title: str = ""
    """Display name; the column's name by default."""
    unit: str = ""
    range: tuple[float, float] | None = None
    """Lowest and highest possible value (number and integer)."""
    categories: Texts = Field(default_factory=list)
    """All values of a category, as written in the table. ``1.0`` and ``1`` are the same; case and
    blanks do not matter unless they tell two of them apart."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Display names of the categories; their codes by default."""
    aliases: list[str] = Field(default_factory=list)
    """Other names that the column has in tables."""
    codes: Codes = Field(default_factory=dict)
    """What a table writes and what it means, such as ``{m: Male, "> 89": 90}``."""
    missing: Texts = Field(default_factory=list)
    """Markers of a missing value, besides the empty string."""
    max_missing: Fraction = 0.0
    """Share of rows that may lack the value; above 0 the model gets a flag for "missing"."""
    optional_at: list[str] = Field(default_factory=list)
    """Hospitals at which the whole column may be absent or empty."""

    @field_validator("labels", mode="before")
    @classmethod
    def _keys_as_text(cls, value: object) -> object:
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _whole(self) -> Column:
        if self.type in ("number", "integer"):
            if self.range is None:
                raise ValueError(f"a column of type {self.type} needs range: [lowest, highest]")
            if not self.range[0] < self.range[1]:
                raise ValueError("range must be [lowest, highest] with lowest < highest")
        elif self.range is not None:
            raise ValueError(f"a column of type {self.type} has no range")
        if self.type == "category":
            if len(self.categories) < 2:
                raise ValueError("a column of type category needs categories: a list of 2 or more")
            categories = set(map(canonical, self.categories))
            if len(categories) != len(self.categories):
                raise ValueError("categories contains a value twice")
            if set(map(folded, categories)) & set(map(folded, self.missing)):
                raise ValueError("a value occurs in both categories and missing")
        elif self.categories:
            raise ValueError(f"a column of type {self.type} has no categories")
        if self.type == "flag" and set(FLAGS) & set(map(folded, self.missing)):
            raise ValueError("missing names a spelling of yes or no")
        unknown = set(self.labels) - set(self.categories)
        if unknown:
            raise ValueError(f"labels names {sorted(unknown)}, which categories does not")
        return self

    @property
    def may_be_missing(self) -> bool:
        """Whether a row may lack the value."""
        return self.max_missing > 0 or bool(self.optional_at)


class Target(Part):
    """The predicted outcome: one column whose values are split into positive and negative."""

    column: str
    positive: Annotated[Texts, Field(min_length=1)]
    negative: Annotated[Texts, Field(min_length=1)]
    missing: Texts = Field(default_factory=list)
    """Markers of an outcome that is not known; such rows go to quarantine."""
    title: str = ""
    """Display name of the outcome, such as ``stroke``."""

    @model_validator(mode="after")
    def _disjoint(self) -> Target:
        kinds = {"positive": self.positive, "negative": self.negative, "missing": self.missing}
        for one, other in itertools.combinations(kinds, 2):
            if set(map(canonical, kinds[one])) & set(map(canonical, kinds[other])):
                raise ValueError(f"a value occurs in both {one} and {other}")
        return self


class Feature(Part):
    """One input of the model.

    ``numeric`` is the value in its unit (null where missing), ``binary`` a flag's value,
    ``category`` is 1 for the rows of one category, ``missing`` is 1 where the column is null.
    """

    name: str
    column: str
    kind: Literal["numeric", "binary", "category", "missing"]
    modality: Modality
    category: str | None = None


def features_of(columns: dict[str, Column]) -> list[Feature]:
    """List the model's inputs in their fixed order.

    The list depends only on the study, so that all hospitals have the same: one input per number,
    integer or flag, one per category, and a flag for "missing" where a row may lack the value.

    Args:
        columns: The study's columns in their order.
    """
    found: list[Feature] = []
    for name, column in columns.items():
        if column.type == "category":
            slugs = ["missing"] if column.may_be_missing else []
            for category in column.categories:
                slug = "".join(c if c.isalnum() else "_" for c in category).strip("_").lower()
                slug = slug or "value"
                # "A+" and "A-" are cleaned to the same name: the later one gets a number.
                if slug in slugs:
                    numbered = (f"{slug}_{n}" for n in itertools.count(2))
                    slug = next(other for other in numbered if other not in slugs)
                slugs.append(slug)
                found.append(
                    Feature(
                        name=f"{name}__{slug}",
                        column=name,
                        kind="category",
                        modality=column.modality,
                        category=category,
                    )
                )
        else:
            kind: Literal["numeric", "binary"] = "binary" if column.type == "flag" else "numeric"
            found.append(Feature(name=name, column=name, kind=kind, modality=column.modality))
        if column.may_be_missing:
            found.append(
                Feature(
                    name=f"{name}__missing", column=name, kind="missing", modality=column.modality
                )
            )
    return found
