"""What the report and the card say in words: the verdict and its honest limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.evaluate.report.curves import NAMES
from tasks.evaluate.results import Comparison, MissingFigures
from tasks.study import Study

FEW_POSITIVES = 100
"""Test patients with the outcome below which an interval is wide; a rule of thumb (Collins et al.
2016 ask for 100 events in external validation)."""


def model_name(key: str, study: Study) -> str:
    """A model's name for people.

    Args:
        key: Such as ``federated`` or ``local:h1``.
        study: Whose hospitals have titles.
    """
    if key.startswith("local:"):
        return f"Local, {key.removeprefix('local:')}"
    if key == "published" and study.evaluation.published:
        return study.evaluation.published.name
    return NAMES.get(key, key)


def verdict(found: Comparison, gates: Sequence[dict[str, Any]] | None) -> list[str]:
    """The result in a few sentences, the most important first."""
    ours, said = found.federated, []
    auroc = "undefined" if ours.auroc is None else f"{ours.auroc:.3f}"
    around = f" ({ours.auroc_ci[0]:.3f} to {ours.auroc_ci[1]:.3f})" if ours.auroc_ci else ""
    said.append(
        f"{len(found.hospitals)} hospitals trained one model without moving a row; on {ours.rows} "
        f"test patients its AUROC is {auroc}{around}."
    )
    if found.ratio is not None:
        said[0] += (
            f" Without hospitals' own intercepts, which the centralized model does not have, it "
            f"reaches {found.ratio.value:.1%} of that model's AUROC."
        )
    gain = found.within_gain
    if gain is not None:
        way = "above" if gain.value >= 0 else "below"
        said.append(
            f"Inside the hospitals it orders patients with a mean AUROC of "
            f"{ours.auroc_within:.3f}, {abs(gain.value):.3f} {way} what each hospital reaches "
            "with a model of its own."
        )
    if gates is not None:
        failed = [gate for gate in gates if not gate["passed"]]
        judged = [gate for gate in gates if gate.get("applicable", True)]
        if failed:
            said.append(
                f"It is not promoted: {len(failed)} of {len(judged)} gates failed. "
                + " ".join(gate["detail"] for gate in failed)
            )
        else:
            said.append(f"All {len(judged)} gates that apply are passed.")
    return said


def caveats(study: Study, found: Comparison) -> list[str]:
    """What a reader must know before believing the figures."""
    ours, said = found.federated, []
    positives = ours.positives or 0
    if positives < FEW_POSITIVES:
        said.append(
            f"Only {positives} test patients have {study.target.title or 'the outcome'}: "
            "differences of a few hundredths of AUROC are within chance. Read the intervals, not "
            "the third digit."
        )
    reference = found.reference
    if reference and reference.auroc is not None and ours.auroc is not None:
        lead = ours.auroc - reference.auroc
        beats = "beats" if lead > 0 else "does not beat"
        said.append(
            f"The federated model {beats} the single strongest feature ({lead:+.3f} AUROC). A "
            "model that does not do so is not worth its complexity."
        )
    published = found.published
    if published and published.auroc is not None and ours.auroc is not None:
        lead = ours.auroc - published.auroc
        said.append(
            f"{model_name('published', study)}, which saw none of these patients, reaches "
            f"{published.auroc:.3f}; the federated model's lead over it is {lead:+.3f}."
        )
    said.append(
        "Pooled AUROC also rewards knowing which hospital a patient is from, where rates differ. "
        "The mean of within-hospital AUROCs does not; local models are compared by that."
    )
    said.append(
        "Two models that see the same patients err together. The intervals of the comparisons with "
        "the centralized model, the champion and the reference allow for that by correlations that "
        "hospitals release (DeLong)" + _unpaired(found) + ". The interval of the gain over local "
        "models does not, so the true one is narrower."
    )
    said.append(
        "AUROC, AUPRC and calibration slopes are computed from summed score histograms in which "
        f"no group has fewer than {study.evaluation.min_count} patients; they agree with row-level "
        "figures to about .002."
    )
    if study.federation.intercept:
        said.append(
            "At each hospital the federated model is scored with that hospital's own intercept. "
            "The registry's model adds it only where the column hospital names one."
        )
    said += [
        f"{study.columns[name].title or name} is missing in {one.rows} training rows, of whom "
        f"{one.missing_rate:.1%} have {study.target.title or 'the outcome'}, against "
        f"{one.known_rate:.1%} of the others. The model sees the flag; whether that carries over "
        "depends on how a hospital records."
        for name, one in found.missing.items()
        if name in study.columns and not 0.5 <= _ratio(one) <= 2
    ]
    if found.synthetic:
        oracle = f" (best possible AUROC {found.oracle_auroc:.3f})" if found.oracle_auroc else ""
        said.append(
            f"The patients are synthetic{oracle}: the figures show that the method works, not how "
            "well it would do in a hospital."
        )
    lost = sum(len(one.lost) for one in found.history)
    if lost:
        what = "update was" if lost == 1 else "updates were"
        said.append(f"{lost} {what} lost in training; the participation chart shows which.")
    return said


def _unpaired(found: Comparison) -> str:
    pairs = (found.ratio, found.champion_difference, found.reference_difference)
    names = sorted({name for pair in pairs if pair for name in pair.unpaired})
    if not names:
        return ""
    return (
        f", where they have enough patients of each outcome; {', '.join(names)} released none for "
        "at least one of them, which makes its interval too wide"
    )


def _ratio(one: MissingFigures) -> float:
    return one.missing_rate / one.known_rate if one.known_rate else float("inf")
