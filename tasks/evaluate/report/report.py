"""The report of a run: one HTML file that needs no network, no script and no other file.

It is written by ``evaluate`` and again by ``promote``, then with the gates' verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.evaluate.report.charts import charts
from tasks.evaluate.report.curves import NAMES
from tasks.evaluate.report.svg import COLOURS, colour
from tasks.evaluate.report.wording import caveats, model_name, verdict
from tasks.evaluate.results import Comparison
from tasks.files import write_atomically
from tasks.run.manifest import Manifest
from tasks.run.step import Context

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    context: Context, comparison: Comparison, gates: Sequence[dict[str, Any]] | None
) -> Path:
    """Render and write ``files/evaluate/report.html``.

    Args:
        context: The run.
        comparison: Its results.
        gates: Verdicts (``name``, ``passed``, ``applicable``, ``value``, ``limit``, ``detail``);
            None before they are known.

    Returns:
        The file.
    """
    path = context.run.folder("evaluate") / "report.html"
    write_atomically(path, render(context, comparison, gates).encode())
    return path


def template_environment(missing: str, *, autoescape: bool) -> Environment:
    """The templates of report and model card, with the filters that both use.

    Args:
        missing: What stands for a number that is None.
        autoescape: Whether values are escaped for HTML.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "n3": lambda value: missing if value is None else f"{value:.3f}",
        "n4": lambda value: missing if value is None else f"{value:.4f}",
        "pct": lambda value: missing if value is None else f"{value:.1%}",
    }
    return environment


def render(context: Context, comparison: Comparison, gates: Sequence[dict[str, Any]] | None) -> str:
    """The report as HTML; see ``write_report``."""
    environment = template_environment("–", autoescape=True)
    environment.filters |= {
        "count": lambda value: "few" if value is None else f"{value:,}".replace(",", " "),
        "ci": lambda value: "" if value is None else f"{value[0]:.3f} – {value[1]:.3f}",
        "size": _size,
    }
    manifests = context.run.manifests()
    template = environment.get_template("report.html.j2")
    return template.render(
        study=context.study,
        plan=context.plan,
        c=comparison,
        gates=gates,
        verdict=verdict(comparison, gates),
        caveats=caveats(context.study, comparison),
        charts=charts(context, comparison),
        models=[
            (key, model_name(key, context.study), summary, colour(key))
            for key, summary in comparison.summaries().items()
        ],
        names=NAMES,
        colours=COLOURS,
        quality=_quality(context),
        tables=_tables(manifests),
        profile=_profiles(context),
        versions={m.step: m.fedrisk for m in manifests},
    )


def _size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def _quality(context: Context) -> list[dict[str, Any]]:
    """What validation said at each hospital; empty where a step is absent."""
    found = []
    for hospital in context.plan.hospitals:
        manifest = context.run.find("validate", hospital)
        figures = manifest.figures if manifest else {}
        missing = {k: v for k, v in (figures.get("missing") or {}).items() if v}
        found.append(
            {
                "hospital": hospital,
                "rows_in": figures.get("rows_in"),
                "rows": figures.get("rows"),
                "quarantined": figures.get("quarantined"),
                "reasons": sorted((figures.get("reasons") or {}).items(), key=lambda x: -x[1]),
                "missing": sorted(missing.items(), key=lambda pair: -pair[1]),
                "target_rate": figures.get("target_rate"),
                "target_rate_before": figures.get("target_rate_before"),
                "expectations": figures.get("expectations"),
            }
        )
    return found


def _tables(manifests: Sequence[Manifest]) -> list[tuple[str, str, int, int, str]]:
    """Hospital, layer, version, rows and URI of every table version that the run used."""
    found = {}
    for manifest in manifests:
        if manifest.step not in ("collect", "validate", "features"):
            continue
        for layer, table in manifest.tables.items():
            key = (manifest.hospital or "", layer)
            found[key] = (*key, table.version, table.rows, table.uri)
    order = ["bronze", "silver", "quarantine", "gold"]
    return sorted(
        found.values(), key=lambda row: (row[0], order.index(row[1]) if row[1] in order else 9)
    )


def _profiles(context: Context) -> list[dict[str, Any]]:
    """Per number or flag of the study, its mean or share at each hospital's training rows.

    The profile's groups are coarse and hide small counts, so a mean is approximate.
    """
    rows = []
    for name, column in context.study.columns.items():
        if column.type == "category":
            continue
        values = {}
        for hospital in context.plan.hospitals:
            manifest = context.run.find("features", hospital)
            profile = (manifest.figures.get("profile") or {}) if manifest else {}
            groups = ((profile.get("columns") or {}).get(name) or {}).get("groups") or []
            values[hospital] = _mean(groups)
        if any(value is not None for value in values.values()):
            title = column.title or name
            rows.append({"title": title, "unit": column.unit, "flag": column.type == "flag"})
            rows[-1]["values"] = values
    return rows


def _mean(groups: Sequence[dict[str, Any]]) -> float | None:
    total = sum(group["rows"] for group in groups)
    if not total:
        return None
    if groups[0].get("centre") is not None:
        return float(sum(group["rows"] * group["centre"] for group in groups) / total)
    ones = sum(group["rows"] for group in groups if group.get("categories") == ["1"])
    return float(ones / total)
