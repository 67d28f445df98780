"""The report's charts, each drawn from the comparison and the curves."""

from __future__ import annotations

from tasks.evaluate.report.curves import drawings, read_curves
from tasks.evaluate.report.svg import (
    Axis,
    Estimate,
    Series,
    bars,
    chart,
    colour,
    forest,
    participation,
)
from tasks.evaluate.report.wording import model_name
from tasks.evaluate.results import Comparison
from tasks.run.step import Context

_SHOWN_FEATURES = 14


def charts(context: Context, comparison: Comparison) -> dict[str, str]:
    """All charts of the report as inline SVG, by name.

    Args:
        context: The run, whose ``curves.json`` must be there.
        comparison: Its results.
    """
    found = drawings(read_curves(context))
    study = context.study
    rows = [
        Estimate(model_name(key, study), one.auroc, one.auroc_ci, colour(key))
        for key, one in comparison.summaries().items()
        if one.auroc is not None and not key.startswith("local:")
    ]
    found["models"] = forest(rows, "AUROC on all test patients", "AUROC of each model", 760)
    rows = []
    for hospital in comparison.hospitals:
        for key in ("central", "federated", "local_only"):
            summary = comparison.summaries().get(key)
            own = summary.per_hospital.get(hospital.name) if summary else None
            if own and own.auroc is not None:
                name = f"{hospital.name} · {model_name(key, study)}"
                rows.append(Estimate(name, own.auroc, own.auroc_ci, colour(key)))
    found["hospitals"] = forest(
        rows, "AUROC on the hospital's test patients", "AUROC of three models at each hospital", 760
    )
    found |= _rounds(comparison)
    found["importance"] = _importance(context, comparison)
    found["seconds"] = bars(
        [
            (step, value, "var(--c-central)")
            for step, value in comparison.seconds.items()
            if step != "total"
        ],
        "Seconds of each step",
        "{:.1f} s",
    )
    return found


def _rounds(comparison: Comparison) -> dict[str, str]:
    history = comparison.history
    if not history:
        return {"auroc": "", "loss": "", "participation": "", "bytes": ""}
    last = max(history[-1].round, 2)
    x = Axis("Round", 1, last, tuple(range(1, last + 1, max(1, last // 8))))
    auroc = [(h.round, h.validation_auroc) for h in history if h.validation_auroc is not None]
    points = [(float(a), float(b)) for a, b in auroc]
    bottom = min([b for _, b in points] or [0.5])
    top = max([b for _, b in points] or [1.0])
    pad = max((top - bottom) * 0.08, 0.005)
    mine, theirs = colour("federated"), colour("local_only")
    validation = [(float(h.round), h.validation_loss) for h in history if h.validation_loss]
    train = [(float(h.round), h.train_loss) for h in history if h.train_loss]
    losses = [b for _, b in validation + train] or [0.0, 1.0]
    low, high = min(losses), max(losses)
    room = max((high - low) * 0.08, 0.002)
    most = max([(h.bytes_up + h.bytes_down) / 1000 for h in history] or [1.0]) * 1.1 or 1.0
    return {
        "auroc": chart(
            [Series("validation AUROC", points, mine, dots=True)],
            x,
            Axis("Validation AUROC", bottom - pad, top + pad, form="{:.3g}"),
            "Validation AUROC of the model that each round started from",
        ),
        "loss": chart(
            [
                Series("training loss", train, theirs, dots=True),
                Series("validation loss", validation, mine, dots=True),
            ],
            x,
            Axis("Loss (nats)", max(low - room, 0.0), high + room, form="{:.3g}"),
            "Training and validation loss over rounds",
        ),
        "participation": participation(
            [hospital.name for hospital in comparison.hospitals],
            [(h.round, h.replied, h.lost) for h in history],
        ),
        "bytes": chart(
            [
                Series(
                    "down", [(h.round, h.bytes_down / 1000) for h in history], theirs, dots=True
                ),
                Series("up", [(h.round, h.bytes_up / 1000) for h in history], mine, dots=True),
            ],
            x,
            Axis("kB a round", 0, most, form="{:.3g}"),
            "Payload to and from the hospitals in each round",
        ),
    }


def _importance(context: Context, comparison: Comparison) -> str:
    drops = comparison.importance.get("federated") or comparison.importance.get("central") or {}
    key = "federated" if comparison.importance.get("federated") else "central"
    titles = {}
    for feature in context.study.features:
        column = context.study.columns[feature.column]
        title = column.title or feature.column
        if feature.kind == "missing":
            title += " missing"
        elif feature.category is not None:
            title += f": {column.labels.get(feature.category, feature.category)}"
        titles[feature.name] = title
    for name, column in context.study.columns.items():
        titles.setdefault(name, column.title or name)
    ordered = sorted(drops.items(), key=lambda pair: -pair[1])[:_SHOWN_FEATURES]
    if not ordered:
        return ""
    rows = [(titles.get(name, name), value, colour(key)) for name, value in ordered]
    return bars(rows, "Drop of validation AUROC when a feature is permuted", "{:.4f}")
