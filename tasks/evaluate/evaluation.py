"""Step ``evaluate``: all models on the same test rows, the report and the model card.

Nothing here sees a row: hospitals' ``score`` manifests hold histograms and figures.
"""

from __future__ import annotations

import zlib
from typing import Any

from tasks.errors import DataError
from tasks.evaluate.pairing import Correlation, difference, ratio
from tasks.evaluate.report.curves import write_curves
from tasks.evaluate.report.model_card import write_card
from tasks.evaluate.report.report import write_report
from tasks.evaluate.resampling import Resamples, interval
from tasks.evaluate.results import (
    Comparison,
    Difference,
    HospitalRows,
    MissingFigures,
    ModelSummary,
    RoundFigures,
)
from tasks.evaluate.summary import histograms, summarize
from tasks.model.scores import Scores
from tasks.run.step import Context, Result
from tasks.telemetry.database import TrackingError
from tasks.telemetry.round_event import RoundEvent, read_events
from tasks.telemetry.sync import sync

SINGLE = ("central", "federated", "reference", "published", "champion")


def evaluate(context: Context) -> Result:
    """Compare, draw, report and log.

    Args:
        context: The run; no hospital.

    Returns:
        Figures: ``Comparison``. Files: ``report``, ``card``, ``curves`` and the pictures.

    Raises:
        DataError: A step before this one has left no manifest.
    """
    scored = read_scores(context)
    comparison = compare(context, scored)
    files = write_curves(context, scored)
    files["report"] = context.run.relative(write_report(context, comparison, None))
    files["card"] = context.run.relative(write_card(context, comparison))
    notes = []
    try:
        sync(context.run, context.settings)
    except TrackingError as error:
        # The comparison is whole without MLflow; promote logs again and insists.
        notes.append(f"Not logged to MLflow yet: {error}")
    return Result(figures=comparison.model_dump(mode="json"), files=files, notes=notes)


def read_scores(context: Context) -> dict[str, dict[str, Scores]]:
    """Read what the hospitals let out, by model and hospital.

    Besides the keys of the ``score`` manifests there is ``local_only``: every hospital's rows
    scored by its own local model.

    Raises:
        DataError: A hospital has not scored, or no hospital has scored the federated model.
    """
    found: dict[str, dict[str, Scores]] = {}
    for hospital in context.plan.hospitals:
        models = context.run.read("score", hospital).figures.get("models") or {}
        for key, value in models.items():
            scores = Scores.model_validate(value)
            found.setdefault(key, {})[hospital] = scores
            if key == f"local:{hospital}":
                found.setdefault("local_only", {})[hospital] = scores
    if "federated" not in found:
        raise DataError(
            f"run {context.run.run}: no hospital's step score has scored the federated model. Run "
            "the steps federated and score again."
        )
    return found


def compare(context: Context, scored: dict[str, dict[str, Scores]]) -> Comparison:
    """Put all figures of a run side by side.

    Args:
        context: The run.
        scored: From ``read_scores``.
    """
    study, run = context.study, context.run
    settings = study.evaluation
    resamples, summaries = {}, {}
    for key in sorted(scored):
        # By the model's name, so that another model beside it changes no interval of this one.
        seed = (study.seed << 32) + zlib.crc32(key.encode())
        resamples[key] = Resamples(histograms(scored[key]), settings.bootstrap, seed)
        summaries[key] = summarize(
            scored[key], settings.strata, resamples[key], settings.confidence
        )
    federated = run.read("federated")
    events = read_events(run.path / federated.files.get("rounds", "files/federated/rounds.jsonl"))
    central = run.find("central")
    best = federated.figures.get("best_round")
    goal = _validation(central.figures if central else None)
    reached = goal if goal is not None else _validation(federated.figures)
    before, reference = run.find("champion"), run.find("reference")
    champion = before.figures if before else {}
    return Comparison(
        run=run.run,
        study=study.name,
        source=context.plan.source_name,
        seed=study.seed,
        confidence=settings.confidence,
        hospitals=[_hospital(context, name) for name in context.plan.hospitals],
        **{key: summaries.get(key) for key in SINGLE},
        local={
            key.removeprefix("local:"): summary
            for key, summary in summaries.items()
            if key.startswith("local:")
        },
        local_only=summaries.get("local_only"),
        champion_version=champion.get("version"),
        champion_source=champion.get("source"),
        champion_differs=champion.get("differs") or [],
        reference_column=reference.figures.get("column") if reference else None,
        **_pairs(context, scored),
        within_gain=_within_gain(summaries, resamples, settings.confidence),
        rounds=int(federated.figures.get("rounds") or len(events)),
        best_round=best,
        rounds_to_99=rounds_to(events, federated.figures, reached),
        rounds_to_99_of="central" if goal is not None else "best round",
        bytes_up=int(federated.figures.get("bytes_up") or sum(e.bytes_up for e in events)),
        bytes_down=int(federated.figures.get("bytes_down") or sum(e.bytes_down for e in events)),
        seconds=_seconds(context),
        history=[
            RoundFigures(**event.model_dump(include=set(RoundFigures.model_fields)))
            for event in events
        ],
        importance=_importance(context),
        missing=missing_rates(
            [context.run.read("features", name).figures for name in context.plan.hospitals]
        ),
        oracle_auroc=_oracle(context),
        notes=_notes(context),
    )


def rounds_to(
    events: list[RoundEvent], federated: dict[str, Any], goal: float | None
) -> int | None:
    """How many rounds it took to reach 99 % of a validation AUROC.

    An event carries the AUROC of the model that its round started from, which the round before
    it made.

    Args:
        events: All rounds, in order.
        federated: The federated manifest's figures, for the model after the last round.
        goal: The AUROC of which 99 % are to be reached.

    Returns:
        Rounds; None if it was not reached or nothing is known.
    """
    if goal is None:
        return None
    for event in events:
        if event.validation_auroc is not None and event.validation_auroc >= 0.99 * goal:
            return max(event.round - 1, 0)
    final, best = _validation(federated), federated.get("best_round")
    return int(best) if final is not None and final >= 0.99 * goal and best is not None else None


def _validation(figures: dict[str, Any] | None) -> float | None:
    value = ((figures or {}).get("validation") or {}).get("auroc")
    return float(value) if value is not None else None


def _hospital(context: Context, name: str) -> HospitalRows:
    figures = context.run.read("features", name).figures
    parts = figures.get("parts", {})
    return HospitalRows(
        name=name,
        title=context.study.hospitals[name].title or name,
        rows=figures["rows"],
        positives=figures["positives"],
        **{part: int(parts[part]["rows"]) for part in ("train", "validation", "test")},
    )


def _pairs(context: Context, scored: dict[str, dict[str, Scores]]) -> dict[str, Difference | None]:
    """The federated model beside those that gates compare it with."""
    counts = {key: histograms(own) for key, own in scored.items()}
    confidence = context.study.evaluation.confidence
    ours, found = counts["federated"], dict[str, Difference | None]()
    for key in ("champion", "reference"):
        if key in counts:
            correlations = _correlations(context, key)
            found[f"{key}_difference"] = difference(ours, counts[key], correlations, confidence)
    if "central" in counts:
        # The centralized model knows no hospital, so it is compared with what all hospitals share.
        shifts = context.run.read("federated").figures.get("intercepts") or {}
        bare = {name: one.shifted(-shifts.get(name, 0.0)) for name, one in ours.items()}
        correlations = _correlations(context, "central")
        found["ratio"] = ratio(bare, counts["central"], correlations, confidence)
    return found


def _correlations(context: Context, key: str) -> dict[str, Correlation]:
    """What hospitals have released of a model's placement values and the federated one's."""
    found = {}
    for hospital in context.plan.hospitals:
        own = context.run.read("score", hospital).figures.get("correlations") or {}
        if key in own:
            found[hospital] = Correlation.model_validate(own[key])
    return found


def _within_gain(
    summaries: dict[str, ModelSummary], resamples: dict[str, Resamples], confidence: float
) -> Difference | None:
    ours = summaries["federated"].auroc_within
    other = summaries.get("local_only")
    if ours is None or other is None or other.auroc_within is None:
        return None
    # No gate compares these two, so no hospital says how they go together.
    values = resamples["federated"].within - resamples["local_only"].within
    return Difference(
        value=ours - other.auroc_within,
        ci=interval(values, confidence),
        unpaired=list(summaries["federated"].per_hospital),
    )


def _seconds(context: Context) -> dict[str, float]:
    found: dict[str, float] = {}
    total = 0.0
    for manifest in context.run.manifests():
        found[manifest.step] = max(found.get(manifest.step, 0.0), manifest.seconds)
        total += manifest.seconds
    return {**found, "total": round(total, 3)}


def _importance(context: Context) -> dict[str, dict[str, float]]:
    found = {}
    for step in ("federated", "central"):
        manifest = context.run.find(step)
        drops = (manifest.figures.get("importance") or {}) if manifest else {}
        if drops:
            found[step] = {k: float(v) for k, v in drops.items() if v is not None}
    return found


def missing_rates(features: list[dict[str, Any]]) -> dict[str, MissingFigures]:
    """Outcome rates with and without a value, per column, from the hospitals' profiles.

    Args:
        features: Figures of the ``features`` manifests.
    """
    counts: dict[str, list[int]] = {}
    for figures in features:
        profile = figures.get("profile") or {}
        for name, column in (profile.get("columns") or {}).items():
            lacking, groups = column.get("missing"), column.get("groups") or []
            if not lacking or not groups:
                continue
            sums = counts.setdefault(name, [0, 0, 0, 0])
            sums[0] += lacking["rows"]
            sums[1] += lacking["positives"]
            sums[2] += sum(group["rows"] for group in groups)
            sums[3] += sum(group["positives"] for group in groups)
    return {
        name: MissingFigures(rows=a, missing_rate=b / a, known_rate=d / c)
        for name, (a, b, c, d) in counts.items()
        if a and c
    }


def _oracle(context: Context) -> float | None:
    manifest = context.run.find("deal")
    value = manifest.figures.get("oracle_auroc") if manifest else None
    return float(value) if value is not None else None


def _notes(context: Context) -> list[str]:
    return [
        f"{manifest.step}{f' ({manifest.hospital})' if manifest.hospital else ''}: {note}"
        for manifest in context.run.manifests()
        for note in manifest.notes
    ]
