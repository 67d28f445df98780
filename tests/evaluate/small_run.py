"""A small but complete run folder: made-up patients, real models, scores and manifests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.evaluate.pairing import correlation
from tasks.model.artifact import RiskModel
from tasks.model.scaling import Scaler
from tasks.model.scores import score
from tasks.run.folder import RunFolder
from tasks.run.manifest import Manifest, TableVersion
from tasks.run.plan import Plan, Request, make_plan
from tasks.run.step import Context
from tasks.settings import Settings
from tasks.telemetry.round_event import RoundEvent, append_event

STUDIES = Path(__file__).parents[2] / "dags" / "studies"
ROWS = {"hospital-1": 500, "hospital-2": 400, "hospital-3": 600}
SHIFT = {"hospital-1": 1.0, "hospital-2": -0.6, "hospital-3": 0.0}


@dataclass(frozen=True)
class SmallRun:
    """The folder, and the rows that no manifest may show."""

    context: Context
    rows: dict[str, tuple[Any, Any]]
    models: dict[str, RiskModel]

    @property
    def run(self) -> RunFolder:
        return self.context.run

    def score(self, key: str, model: RiskModel) -> None:
        """Have every hospital score one more model."""
        for hospital, rows in self.rows.items():
            _score(self.context, hospital, rows, key, model, self.models["federated"])


def settings_at(home: Path) -> Settings:
    return Settings.from_environment({"FEDRISK_HOME": str(home), "FEDRISK_STUDIES": str(STUDIES)})


def make_run(
    home: Path,
    name: str,
    *,
    noise: float = 0.0,
    shift: float = 0.0,
    pooling: bool = True,
    overrides: tuple[str, ...] = (),
    promote: bool = True,
    intercepts: dict[str, float] | None = None,
    source: Path | None = None,
) -> SmallRun:
    """Write a run as its steps would leave it before ``evaluate``.

    Args:
        home: FEDRISK_HOME.
        name: The run's id.
        noise: Added to the federated model's weights, so that it is worse.
        shift: Added to the federated model's logits, so that its risks are wrong.
        pooling: Whether there is a centralized model.
        overrides: Of the study.
        promote: Whether a winner is crowned.
        intercepts: Of the federated model, by hospital.
        source: The table that the rows are said to be of; none for the synthetic cohort.
    """
    settings = settings_at(home)
    given = ["evaluation.bootstrap=200", *overrides]
    if not pooling:
        given += ["pooling=forbidden", "gates.min_ratio_to_central=null"]
    table = str(source) if source else None
    asked = Request(study="stroke", source=table, overrides=given, promote=promote)
    plan = make_plan(asked, name, settings)
    run = RunFolder(settings.runs, name)
    context = Context(plan=plan, run=run, settings=settings, hospital=None)
    rng = np.random.default_rng(3)
    names = [feature.name for feature in plan.study.features]
    truth = rng.normal(0, 0.2, len(names))
    truth[names.index("age")] = 1.6
    truth[names.index("hypertension")] = 0.8
    models = _models(plan, truth, noise, shift)
    models["federated"].intercepts.update(intercepts or {})
    rows = {}
    for hospital in plan.hospitals:
        rows[hospital] = _rows(rng, names, truth, hospital)
        _hospital(context, hospital, rows[hospital], models)
    _trained(context, models, pooling)
    return SmallRun(context, rows, models)


def _rows(rng: Any, names: list[str], truth: Any, hospital: str) -> tuple[Any, Any]:
    n = ROWS[hospital]
    x = (rng.random((n, len(names))) < 0.3).astype(float)
    x[:, names.index("age")] = rng.normal(SHIFT[hospital], 1, n)
    for name in ("avg_glucose_level", "bmi"):
        x[:, names.index(name)] = rng.normal(0, 1, n)
    logit = x @ truth - 3.0
    return x, (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float32)


def _models(plan: Plan, truth: Any, noise: float, shift: float) -> dict[str, RiskModel]:
    rng = np.random.default_rng(5)
    study = plan.study
    d = len(study.features)

    def model(weights: Any, bias: float) -> RiskModel:
        return RiskModel(
            kind="logistic",
            study=study.name,
            features=tuple(feature.name for feature in study.features),
            model=study.model,
            scaler=Scaler(np.zeros(d), np.ones(d)),
            flat=np.concatenate([weights, [bias]]).astype(np.float32),
            threshold=0.12,
            strata=study.evaluation.strata,
        )

    age = np.zeros(d)
    age[0] = 1.6
    found = {
        "central": model(truth + rng.normal(0, 0.05, d), -3.0),
        "federated": model(
            truth + rng.normal(0, 0.06, d) + rng.normal(0, 1, d) * noise, -3 + shift
        ),
        "reference": model(age, -2.6),
    }
    for hospital in plan.hospitals:
        found[f"local:{hospital}"] = model(truth + rng.normal(0, 0.5, d), -3.0)
    return found


def _write(context: Context, step: str, hospital: str | None = None, **rest: Any) -> None:
    base = {"step": step, "study": context.study.name, "run": context.run.run}
    context.run.write(Manifest(**base, hospital=hospital, seconds=1.5, **rest))


def _score(
    context: Context, hospital: str, rows: Any, key: str, model: RiskModel, federated: RiskModel
) -> None:
    (x, y), evaluation = rows, context.study.evaluation
    ours, risk = (one.probability(x, hospital) for one in (federated, model))
    manifest = context.run.read("score", hospital)
    manifest.figures["models"][key] = score(
        y,
        risk,
        threshold=model.threshold,
        strata=evaluation.strata,
        evaluation=evaluation,
        seed=1,
    ).model_dump(mode="json")
    found = correlation(y, ours, risk, evaluation.min_count)
    if found and key in context.study.gates.compared:
        manifest.figures["correlations"][key] = found.model_dump()
    context.run.write(manifest)


def _hospital(
    context: Context, hospital: str, rows: tuple[Any, Any], models: dict[str, RiskModel]
) -> None:
    x, y = rows
    n, positives = len(y), int(y.sum())
    table = {
        layer: TableVersion(uri=f"/lake/{hospital}/{layer}", version=1, rows=n)
        for layer in ("silver", "gold")
    }
    figures = {
        "rows_in": 5 * n + 7, "rows": 5 * n, "positives": 5 * positives, "quarantined": 7,
        "reasons": {"avg_glucose_level: out of range": 7}, "missing": {"bmi": 0.04},
        "target_rate": positives / n, "target_rate_before": None, "expectations": 14, "failed": [],
    }  # fmt: skip
    _write(context, "validate", hospital, figures=figures, tables={"silver": table["silver"]})
    parts = {
        part: {"rows": k * n, "positives": k * positives}
        for part, k in (("train", 3), ("validation", 1), ("test", 1))
    }
    groups = [
        {"name": "0 to 60", "low": 0, "high": 60, "centre": 45.0, "rows": n, "positives": 10},
        {"name": "60 to 120", "low": 60, "high": 120, "centre": 72.0, "rows": n, "positives": 30},
    ]
    figures = {
        "rows": 5 * n, "positives": 5 * positives, "parts": parts, "features": x.shape[1],
        "profile": {
            "columns": {
                "age": {"kind": "number", "groups": groups},
                "bmi": {
                    "kind": "number", "groups": groups,
                    "missing": {"name": "missing", "rows": 20, "positives": 4},
                },
            }
        },
    }  # fmt: skip
    _write(context, "features", hospital, figures=figures, tables={"gold": table["gold"]})
    _write(context, "score", hospital, figures={"models": {}, "correlations": {}})
    for key, model in models.items():
        _score(context, hospital, rows, key, model, models["federated"])
    _write(context, "local", hospital, figures={"validation": {"auroc": 0.8, "loss": 0.2}})


def _trained(context: Context, models: dict[str, RiskModel], pooling: bool) -> None:
    run, hospitals = context.run, context.plan.hospitals
    _write(context, "champion", figures={"version": None, "run": None})
    importance = {"age": 0.12, "hypertension": 0.01, "bmi__missing": 0.004, "gender__male": -0.001}
    for step in ("reference", "central", "federated"):
        if step == "central" and not pooling:
            for hospital in hospitals:
                manifest = run.read("score", hospital)
                manifest.figures["models"].pop("central")
                run.write(manifest)
            continue
        path = run.folder(step) / "model.safetensors"
        models[step].save(path)
        figures: dict[str, Any] = {
            "validation": {"auroc": 0.84, "loss": 0.15},
            "threshold": 0.12,
            "importance": importance,
        }
        files = {"model": run.relative(path)}
        if step == "reference":
            figures["column"] = "age"
        if step == "federated":
            rounds = run.folder(step) / "rounds.jsonl"
            rounds.unlink(missing_ok=True)
            for number in range(1, 7):
                lost = {"hospital-2": "no reply within 120 s"} if number == 3 else {}
                replied = [name for name in hospitals if name not in lost]
                append_event(
                    rounds,
                    RoundEvent(
                        round=number, rounds=6, seconds=1.2, selected=hospitals, replied=replied,
                        lost=lost, weights={name: 1 / len(replied) for name in replied},
                        train_loss=0.3 / number + 0.15, validation_loss=0.25 / number + 0.16,
                        validation_auroc=0.85 - 0.3 / number**2,
                        hospital_loss=dict.fromkeys(replied, 0.2),
                        bytes_up=57_000, bytes_down=85_000, learning_rate=0.1, update_norm=0.4,
                    ),
                )  # fmt: skip
            figures["intercepts"] = models[step].intercepts
            figures |= {"rounds": 6, "best_round": 6, "bytes_up": 342_000, "bytes_down": 510_000}
            files["rounds"] = run.relative(rounds)
        _write(context, step, figures=figures, files=files)
