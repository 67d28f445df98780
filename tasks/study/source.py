"""The source of the hospitals' rows, and how one table is dealt out for a demonstration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.study.base import Codes, Count, Fraction, Part, Positive


class Share(Part):
    """One hospital's part of a table that is dealt out (a non-IID plan)."""

    rows: Count
    """Patients of this hospital, exact if the table has as many as the shares add up to, else in
    proportion."""
    positive_rate: Fraction
    """Share of positives. Where the table's number of positives differs from the sum of the rates,
    all hospitals' rates are scaled by one factor."""
    prefer_mean: dict[str, tuple[float, Positive]] = Field(default_factory=dict)
    """Per numeric column: mean and standard deviation of the Gaussian that weights patients for
    this hospital."""
    prefer: dict[str, dict[str, Positive]] = Field(default_factory=dict)
    """Per category column: the relative weight of each category, 1 by default."""


class Hospital(Part):
    """One site that owns rows."""

    title: str = ""
    """Display name."""
    path: str | None = None
    """This hospital's own table (source kind ``own``): path, ``s3a://`` or ``https://``; a
    relative path starts at the study file's folder, or at --source."""
    site: str | None = None
    """This hospital's value in the site column (source kind ``site_column``)."""
    share: Share | None = None
    """This hospital's part of the one table (source kind ``deal``)."""
    columns: dict[str, str] = Field(default_factory=dict)
    """The study's columns and their names in this hospital's table, where these differ."""
    codes: dict[str, Codes] = Field(default_factory=dict)
    """Per column: what this hospital writes and what it means, besides the column's ``codes``."""


class Source(Part):
    """How the raw tables are read."""

    kind: Literal["own", "site_column", "deal"]
    """own: each hospital has its own table. site_column: one table with a column for the hospital.
    deal: one table, or a synthetic cohort, is dealt out by the hospitals' shares (demonstration).
    """
    path: str | None = None
    """The one table of ``site_column`` and ``deal``; --source replaces it."""
    site_column: str | None = None
    synthetic: Literal["stroke"] | None = None
    """The cohort generator for ``deal`` without a path."""
    format: Literal["csv", "parquet", "delta", "xlsx", "sql"] = "csv"
    """xlsx: a sheet of Excel (also .xls, .xlsb, .ods). sql: a query or table of each hospital's
    PostgreSQL, whose ``path`` is ``postgresql://host[:port]/database``; user and password are in
    its owner's environment (``PGUSER``, ``PGPASSWORD``)."""
    sheet: str | None = None
    """The sheet of an xlsx; the first by default."""
    table: str | None = None
    """The table or view of a database, ``[schema.]name``."""
    query: str | None = None
    """The query of a database, in place of ``table``."""
    header: bool = True
    """Whether a CSV's first line names the columns; otherwise ``fields`` does."""
    fields: list[str] = Field(default_factory=list)
    """The columns of a CSV without a header, in order."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "utf-16", "cp1252", "iso-8859-1", "iso-8859-15"] = "utf-8"
    """Of a CSV; a byte order mark of UTF-8 or UTF-16 is followed whatever stands here."""
    decimal: Literal[".", ","] = "."
    """What stands before the decimals of a CSV's numbers."""
    thousands: Literal["", ",", ".", "'", " "] = ""
    """What may stand between the thousands of a CSV's numbers."""
    skip: Annotated[int, Field(ge=0, le=1000)] = 0
    """Lines of a CSV or xlsx before its header, such as a title; ``sep=;`` is not one of them."""
    extra: Literal["ignore", "refuse"] = "ignore"
    """What becomes of columns that the study does not name: they never enter the lake, or they are
    an error."""
    other_sites: Literal["ignore", "refuse"] = "refuse"
    """What becomes of rows whose site is no hospital of the study (kind ``site_column``)."""

    @model_validator(mode="after")
    def _whole(self) -> Source:
        if self.kind == "site_column" and not self.site_column:
            raise ValueError("kind site_column needs site_column: the column that names the site")
        if self.kind != "site_column" and self.site_column:
            raise ValueError(f"kind {self.kind} has no site_column")
        if self.other_sites == "ignore" and self.kind != "site_column":
            raise ValueError(f"kind {self.kind} has no other_sites")
        if self.synthetic and self.kind != "deal":
            raise ValueError("synthetic replaces a table that is dealt out: use kind deal")
        if not self.header and not self.fields:
            raise ValueError("a CSV without a header needs fields: the columns in order")
        if self.sheet is not None and self.format != "xlsx":
            raise ValueError("sheet is for format xlsx")
        if (self.format == "sql") != ((self.table is None) != (self.query is None)):
            raise ValueError("format sql needs table or query, and no other format has either")
        if self.format == "sql" and self.kind != "own":
            raise ValueError("format sql reads each hospital's own database: use kind own")
        if self.decimal == self.thousands:
            raise ValueError("decimal and thousands are the same mark")
        if self.format != "csv" and (self.decimal != "." or self.thousands):
            raise ValueError("decimal and thousands are for a CSV: other formats hold numbers")
        if not self.header and self.format in ("xlsx", "sql"):
            raise ValueError(f"header: false is for a CSV; format {self.format} has names")
        if self.header and self.fields:
            raise ValueError("fields is for a CSV without a header; here the header names them")
        return self
