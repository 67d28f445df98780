"""The curves of all models, kept so that the report can be drawn again once the gates are known."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tasks.evaluate.report import svg as pictures
from tasks.evaluate.report.svg import Axis, Series, chart, colour
from tasks.evaluate.summary import histograms
from tasks.files import write_atomically
from tasks.model.histogram import summed
from tasks.model.scores import Scores
from tasks.run.step import Context

NAMES = {
    "central": "Centralized",
    "federated": "Federated",
    "local_only": "Local only",
    "reference": "Reference",
    "published": "Published score",
    "champion": "Champion before",
}
_DRAWN = ("reference", "published", "champion", "local_only", "central", "federated")
_MOST_POINTS = 160


class Curves(BaseModel):
    """Points of one model.

    Attributes:
        roc: False and true positive rate.
        pr: Recall and precision.
        calibration: Mean predicted risk, observed share and patients of a group.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    roc: list[tuple[float, float]] = Field(default_factory=list)
    pr: list[tuple[float, float]] = Field(default_factory=list)
    calibration: list[tuple[float, float, int]] = Field(default_factory=list)


def write_curves(context: Context, scored: dict[str, dict[str, Scores]]) -> dict[str, str]:
    """Write ``curves.json`` and the pictures.

    Args:
        context: The run.
        scored: Scores by model and hospital.

    Returns:
        The files by purpose, as a manifest names them.
    """
    found: dict[str, Curves] = {}
    for key in _DRAWN:
        if key not in scored:
            continue
        pooled = summed(histograms(scored[key]).values())
        found[key] = Curves(
            roc=_thin(pooled.roc_points()),
            pr=_thin(pooled.pr_points()),
            calibration=pooled.calibration_points(),
        )
    folder = context.run.folder("evaluate")
    path = folder / "curves.json"
    content = {key: one.model_dump(mode="json") for key, one in found.items()}
    write_atomically(path, json.dumps(content).encode() + b"\n")
    files = {"curves": context.run.relative(path)}
    for name, svg in drawings(found).items():
        picture = folder / f"{name}.svg"
        write_atomically(picture, pictures.standalone(svg).encode())
        files[f"picture_{name}"] = context.run.relative(picture)
    return files


def read_curves(context: Context) -> dict[str, Curves]:
    """Read what ``write_curves`` kept, in drawing order."""
    path = context.run.folder("evaluate") / "curves.json"
    content: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return {key: Curves.model_validate(one) for key, one in content.items()}


def drawings(curves: dict[str, Curves]) -> dict[str, str]:
    """ROC, precision and recall, and calibration, as inline SVG.

    Args:
        curves: By model, in drawing order.
    """
    diagonal = Series("chance", [(0, 0), (1, 1)], "var(--soft)", dashed=True)
    share = "{:.1f}"
    roc = chart(
        [diagonal, *(Series(NAMES[k], c.roc, colour(k)) for k, c in curves.items())],
        Axis("False positive rate", 0, 1, form=share),
        Axis("True positive rate", 0, 1, form=share),
        "ROC curves of the models on all test patients",
    )
    pr = chart(
        [Series(NAMES[k], c.pr, colour(k)) for k, c in curves.items()],
        Axis("Recall", 0, 1, form=share),
        Axis("Precision", 0, 1, form=share),
        "Precision over recall of the models on all test patients",
    )
    shown = {k: c.calibration for k, c in curves.items() if k in ("central", "federated")}
    top = max([max(p, o) for points in shown.values() for p, o, _ in points] or [1.0]) * 1.08
    top = max(top, 0.02)
    calibration = chart(
        [
            Series("ideal", [(0, 0), (top, top)], "var(--soft)", dashed=True),
            *(
                Series(
                    NAMES[k],
                    [(p, o) for p, o, _ in points],
                    colour(k),
                    dots=True,
                    tips=[f"{NAMES[k]}: {p:.3f} predicted, {o:.3f} observed" for p, o, _ in points],
                )
                for k, points in shown.items()
            ),
        ],
        Axis("Mean predicted risk", 0, top),
        Axis("Observed share", 0, top),
        "Observed share over predicted risk in groups of patients",
    )
    return {"roc": roc, "precision_recall": pr, "calibration": calibration}


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many points, the ends among them, rounded for the file's size."""
    step = max(1, -(-len(points) // _MOST_POINTS))
    kept = points[::step]
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return [(round(a, 4), round(b, 4)) for a, b in kept]
