"""Judge a hospital's table as a whole with Great Expectations, and leave its Data Docs.

The expectations come from the study's columns. They are judged on a summary of which rule every
row keeps (true, false, or null where the value is missing) and on the values that an expectation
needs; the pages show counts and shares but never a value, since they are kept with the run.
"""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data.values import NUMBER
from tasks.study import Column, Study, canonical

if TYPE_CHECKING:
    import pandas as pd

MAX_BROKEN = 0.5
"""Largest share of a column's known values that may break one rule, and of rows in quarantine:
above, the column or table is not what the study says, rather than some of its rows."""
MAX_UNKNOWN_TARGET = 0.05
"""Largest share of rows whose target is neither positive nor negative: above, the target has a
value that the study does not know of."""


LABEL = "outcome (0 or 1)"
"""Name of the label in the table that is judged; null where the target is not known."""
REASON = "broken rules"
"""Name of the column with a row's broken rules; null where it keeps all."""


@dataclass(frozen=True)
class Check:
    """An expectation and what to say if the table does not meet it.

    Attributes:
        name: Column and rule.
        expectation: Great Expectations' own object.
        message: What was expected and what to do; ``{broken}``, ``{known}`` and ``{share}`` are
            filled from the result.
    """

    name: str
    expectation: Any
    message: str

    def filled(self, known: int, broken: int) -> str:
        """The message for a number of known values and of those that do not meet it."""
        share = broken / known if known else 0.0
        filled = self.message
        # Not str.format: a unit or a category may hold braces of its own.
        for name, value in (("{broken}", broken), ("{known}", known), ("{share}", f"{share:.0%}")):
            filled = filled.replace(name, str(value))
        return filled


@dataclass(frozen=True)
class Judgement:
    """What Great Expectations said.

    Attributes:
        expectations: How many were judged.
        failed: Message by name of those that the table does not meet.
        pages: Folder of the Data Docs.
    """

    expectations: int
    pages: Path
    failed: dict[str, str] = field(default_factory=dict)


def typed(name: str) -> str:
    """Name of a column's typed values in the table that is judged."""
    return f"{name} (value)"


def checks_of(study: Study, hospital: str, drift: tuple[float, float] | None) -> list[Check]:
    """List the expectations of one hospital's table.

    Args:
        study: Columns and target.
        hospital: At some hospitals a column may be missing.
        drift: Lowest and highest share of positives, from the version before.
    """
    import great_expectations.expectations as gxe

    checks = [
        Check(
            "table: rows",
            gxe.ExpectTableRowCountToBeBetween(min_value=1),
            "the table has no row; expected a row a patient",
        )
    ]
    if study.id:
        checks += [
            Check(
                f"{study.id}: missing",
                gxe.ExpectColumnValuesToNotBeNull(column=study.id, mostly=1 - MAX_BROKEN),
                "{broken} of {known} rows have no id; expected one each",
            ),
            Check(
                f"{study.id}: duplicate",
                gxe.ExpectColumnValuesToBeUnique(column=study.id, mostly=1 - MAX_BROKEN),
                "{broken} of {known} ids stand there more than once; expected one row a patient",
            ),
        ]
    for name, column in study.columns.items():
        checks += _column_checks(name, column, hospital)
    target = study.target.column
    values = sorted({canonical(v) for v in [*study.target.positive, *study.target.negative]})
    checks += [
        Check(
            f"{target}: missing",
            gxe.ExpectColumnValuesToNotBeNull(column=target, mostly=1 - MAX_BROKEN),
            "{broken} of {known} rows have no outcome; expected one each",
        ),
        Check(
            f"{target}: value",
            gxe.ExpectColumnValuesToBeInSet(
                column=target, value_set=values, mostly=1 - MAX_UNKNOWN_TARGET
            ),
            "{broken} of {known} rows have one of {unknown} values that the study's target does "
            "not name; expected " + ", ".join(values) + ". Add to target.positive or .negative",
        ),
        Check(
            f"{target}: positives",
            gxe.ExpectColumnMaxToBeBetween(column=LABEL, min_value=1, max_value=1),
            "no row is positive; expected both outcomes at every hospital. Check target.positive",
        ),
        Check(
            f"{target}: negatives",
            gxe.ExpectColumnMinToBeBetween(column=LABEL, min_value=0, max_value=0),
            "no row is negative; expected both outcomes at every hospital. Check target.negative",
        ),
        Check(
            "table: quarantine",
            gxe.ExpectColumnValuesToBeNull(column=REASON, mostly=1 - MAX_BROKEN),
            "{broken} of {known} rows break a rule, more than half",
        ),
    ]
    if drift is not None:
        checks.append(
            Check(
                f"{target}: drift",
                gxe.ExpectColumnMeanToBeBetween(
                    column=LABEL, min_value=drift[0], max_value=drift[1]
                ),
                f"the share of positives left {drift[0]:.3f} to {drift[1]:.3f}, what the version "
                "before lets expect; check the source, or give it under another name",
            )
        )
    return checks


def _column_checks(name: str, column: Column, hospital: str) -> list[Check]:
    import great_expectations.expectations as gxe

    most = 1 - MAX_BROKEN
    checks = []
    if hospital not in column.optional_at:
        allowed = column.max_missing or MAX_BROKEN
        checks.append(
            Check(
                f"{name}: missing",
                gxe.ExpectColumnValuesToNotBeNull(column=name, mostly=1 - allowed),
                "{share} of {known} rows lack the value; "
                + f"at most {allowed:.0%} may. Check the markers in missing, raise max_missing, "
                "or name the hospital in optional_at",
            )
        )
    if column.type == "category":
        values = sorted({canonical(category) for category in column.categories})
        checks.append(
            Check(
                f"{name}: category",
                gxe.ExpectColumnValuesToBeInSet(column=name, value_set=values, mostly=most),
                "{broken} of {known} values are none of the study's categories; expected "
                + ", ".join(column.categories),
            )
        )
        return checks
    pattern = "^[01]$" if column.type == "flag" else NUMBER
    checks.append(
        Check(
            f"{name}: type",
            gxe.ExpectColumnValuesToMatchRegex(column=name, regex=pattern, mostly=most),
            "{broken} of {known} values are no "
            + ("yes or no, 1 or 0" if column.type == "flag" else f"{column.type}"),
        )
    )
    if column.range is not None:
        low, high = column.range
        checks.append(
            Check(
                f"{name}: range",
                gxe.ExpectColumnValuesToBeBetween(
                    column=typed(name), min_value=low, max_value=high, mostly=most
                ),
                "{broken} of {known} values are outside "
                + f"{low:g} to {high:g} {column.unit}".strip()
                + "; check the unit",
            )
        )
    return checks


def judge(frame: pd.DataFrame, checks: list[Check], title: str, pages: Path) -> Judgement:
    """Judge a table and leave the Data Docs.

    Args:
        frame: What the expectations name; of a table's values the study's columns as known text
            (null where missing), typed values of numbers (``typed``), ``LABEL`` and ``REASON``.
        checks: The expectations.
        title: What the pages call the table.
        pages: Folder for the Data Docs.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    # The second has a level of its own.
    for logger in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    for site in list(context.get_site_names()):
        context.delete_data_docs_site(site)
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(pages),
        },
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    context.add_data_docs_site(site_name="pages", site_config=site)
    source = context.data_sources.add_pandas("hospital")
    batch = source.add_dataframe_asset(name=title).add_batch_definition_whole_dataframe("run")
    # All at once: the suite would be stored again after each.
    suite = context.suites.add(
        gx.ExpectationSuite(name=title, expectations=[check.expectation for check in checks])
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=title, data=batch, suite=suite)
    )
    checkpoint = gx.Checkpoint(
        name=title,
        validation_definitions=[definition],
        actions=[gx.checkpoint.UpdateDataDocsAction(name="pages", site_names=["pages"])],
        # No sample of unexpected values: the pages are kept with the run, not with the lake.
        result_format={"result_format": "BASIC", "partial_unexpected_count": 0},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ended = checkpoint.run(batch_parameters={"dataframe": frame})
    results = next(iter(ended.run_results.values())).results
    by_config = {
        (r.expectation_config.type, _column(r.expectation_config.kwargs)): r for r in results
    }
    failed: dict[str, str] = {}
    for check in checks:
        kind = check.expectation.expectation_type
        column = getattr(check.expectation, "column", None)
        result = by_config[(kind, column)]
        if not result.success:
            counts = result.result
            known = counts.get("element_count", 0) - counts.get("missing_count", 0)
            failed[check.name] = check.filled(known, counts.get("unexpected_count", 0))
    return Judgement(expectations=len(results), failed=failed, pages=pages)


def _column(arguments: dict[str, Any]) -> str | None:
    return arguments.get("column")
