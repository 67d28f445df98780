"""Steps ``central`` and ``local``: what all rows in one place give, and what one's own rows do.

A federated model is worth its trouble if it comes near the first and leads the second, so both are
made as strong as the data allows: the same network, stopped and cut on validation rows.
"""

from __future__ import annotations

from tasks.errors import DataError
from tasks.model.importance import permutation_importance
from tasks.model.rows import PARTS, Rows, concatenate, load_rows
from tasks.run.step import Context, Result

LEARNING = ("train", "validation")
"""The parts that a model is made of; test rows are read by the step score alone."""


def gold_rows(context: Context, hospital: str, parts: tuple[str, ...] = PARTS) -> Rows:
    """Read the gold table that this run made at a hospital.

    Args:
        context: The run.
        hospital: Whose rows.
        parts: The parts to read.

    Raises:
        DataError: The step features has not run, or the table is not the study's.
    """
    gold = context.run.read("features", hospital).tables["gold"]
    return load_rows(gold.uri, context.study, gold.version, parts)


def central(context: Context) -> Result:
    """Train on the pooled rows of all hospitals of the run.

    Args:
        context: The run.

    Raises:
        DataError: The study forbids pooling.
    """
    if context.study.pooling != "allowed":
        raise DataError(
            f"study {context.study.name} says pooling: {context.study.pooling}, so rows of several "
            "hospitals may not be read together; leave the step central out."
        )
    rows = [gold_rows(context, hospital, LEARNING) for hospital in context.plan.hospitals]
    return _fitted(context, concatenate(rows))


def local(context: Context) -> Result:
    """Train on one hospital's own rows.

    Args:
        context: The run and the hospital.
    """
    return _fitted(context, gold_rows(context, context.own, LEARNING))


def _fitted(context: Context, rows: Rows) -> Result:
    # Imported here, for score imports this module and needs no torch.
    from tasks.model.fitting import fit

    study = context.study
    found = fit(rows, study, study.seed)
    step = "central" if context.hospital is None else "local"
    path = context.run.folder(step, context.hospital) / "model.safetensors"
    found.model.save(path)
    validation = rows.of("validation")
    return Result(
        files={"model": context.run.relative(path)},
        figures={
            "rows": len(rows.of("train")),
            "validation": {"auroc": found.auroc, "loss": found.loss},
            "threshold": found.model.threshold,
            "epochs": found.epoch,
            "history": list(found.history),
            "importance": permutation_importance(
                found.model, validation.x, validation.y, study.features, study.seed
            ),
        },
    )
