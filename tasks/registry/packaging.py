"""Log a risk model to MLflow so that it loads and predicts on a machine without fedrisk."""

from __future__ import annotations

import ast
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tasks
from tasks.study import Column, Study
from tasks.telemetry.tracking import RUN_TAG

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

REQUIREMENTS = ("mlflow", "numpy", "pandas", "pydantic", "ruamel.yaml", "safetensors")
ENTRY = "tasks.registry.pyfunc_model"
_PACKAGE = Path(tasks.__file__).parent


def log_model(connected: MlflowClient, identifier: str, run: str, study: Study, model: Path) -> str:
    """Log the model to an MLflow run, or find it there.

    Args:
        connected: From ``tracking.client``.
        identifier: The MLflow run.
        run: The fedrisk run's id, kept as a tag.
        study: The study, which says how raw columns become features.
        model: The ``model.safetensors``.

    Returns:
        The model's URI.
    """
    experiment = connected.get_run(identifier).info.experiment_id
    mine = f"source_run_id = '{identifier}'"
    for there in connected.search_logged_models([experiment], filter_string=mine):
        if str(there.status) == "READY":
            return f"models:/{there.model_id}"
    import mlflow

    folder = Path(tempfile.mkdtemp(prefix="fedrisk-package-"))
    try:
        code = _copied_code(folder)
        frozen = folder / "study.json"
        frozen.write_text(study.model_dump_json(indent=1), encoding="utf-8")
        entry = folder / "pyfunc_model.py"
        shutil.copyfile(_file(ENTRY), entry)
        # log_model logs to the run of the model's client only through the fluent API.
        with mlflow.start_run(run_id=identifier, nested=True, log_system_metrics=False):
            info = mlflow.pyfunc.log_model(
                name="risk-model",
                python_model=str(entry),
                artifacts={"model": str(model), "study": str(frozen)},
                code_paths=[str(code)],
                signature=signature(study),
                input_example=example(study),
                pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
                metadata={"study": study.name, "columns": described(study)},
                tags={RUN_TAG: run},
            )
        return str(info.model_uri)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def signature(study: Study) -> ModelSignature:
    """The types of what goes in and comes out.

    A number may come as an integer or a float and a code as a number or text, as tables are
    read; MLflow would refuse one of the two under any narrower type than ``any``. The model
    itself checks types, ranges and categories.

    Args:
        study: Whose raw columns.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    inputs = [
        ColSpec(
            DataType.string if _is_text(column) else AnyType(),
            name,
            required=not column.may_be_missing,
        )
        for name, column in study.columns.items()
    ]
    if "hospital" not in study.columns:
        inputs.append(ColSpec(DataType.string, "hospital", required=False))
    outputs = [ColSpec(DataType.double, "probability"), ColSpec(DataType.string, "stratum")]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def example(study: Study) -> pd.DataFrame:
    """Two made-up patients from the study's ranges and categories alone; no row is looked at.

    Args:
        study: Whose raw columns.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for place in (0, 1):
        row: dict[str, Any] = {}
        for name, column in study.columns.items():
            if column.range is not None:
                low, high = column.range
                value = low + (high - low) * (0.3 + 0.3 * place)
                row[name] = int(value) if column.type == "integer" else round(value, 1)
            elif column.type == "flag":
                row[name] = place
            else:
                row[name] = column.categories[-place]
        rows.append(row)
    return pd.DataFrame(rows)


def described(study: Study) -> dict[str, dict[str, Any]]:
    """What each raw column means, for those who call the model."""
    keys = {"type", "title", "unit", "range", "categories", "labels", "missing"}
    return {
        name: {
            **column.model_dump(mode="json", include=keys, exclude_defaults=True),
            "required": not column.may_be_missing,
        }
        for name, column in study.columns.items()
    }


def _is_text(column: Column) -> bool:
    """Whether a column's values can only be read as text."""

    def is_number(text: str) -> bool:
        try:
            float(text)
        except ValueError:
            return False
        return True

    return column.type == "category" and not any(map(is_number, column.categories))


def _file(module: str) -> Path:
    path = _PACKAGE.parent / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _copied_code(folder: Path) -> Path:
    """Copy the modules that the model imports, however far down, as a package ``tasks``."""
    wanted, found = [ENTRY], set()
    while wanted:
        module = wanted.pop()
        file = _file(module)
        if module in found or not file.is_file():
            continue
        found.add(module)
        parts = module.split(".")
        wanted += [".".join(parts[:length]) for length in range(1, len(parts))]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tasks"):
                wanted += [str(node.module), *(f"{node.module}.{n.name}" for n in node.names)]
            elif isinstance(node, ast.Import):
                wanted += [name.name for name in node.names if name.name.startswith("tasks")]
    for module in found - {ENTRY, "tasks.registry"}:
        target = folder / _file(module).relative_to(_PACKAGE.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_file(module), target)
    return folder / "tasks"
