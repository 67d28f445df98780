"""Log a risk model to MLflow so that it loads and predicts on a machine without fedrisk."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tasks
from tasks.study import Study
from tasks.telemetry.tracking import RUN_TAG

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

REQUIREMENTS = ("mlflow", "numpy", "pandas", "pydantic", "ruamel.yaml", "safetensors")
ENTRY = "tasks.registry.pyfunc_model"
_PACKAGE = Path(tasks.__file__).parent
_TASKS = re.compile(r"(?m)^(\s*(?:from|import)) tasks(?=[. ])")


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
        entry, code = _copied_code(folder)
        frozen = folder / "study.json"
        frozen.write_text(study.model_dump_json(indent=1), encoding="utf-8")
        # log_model logs to the run of the model's client only through the fluent API.
        with (
            _importable(folder),
            mlflow.start_run(run_id=identifier, nested=True, log_system_metrics=False),
        ):
            info = mlflow.pyfunc.log_model(
                name="risk-model",
                python_model=str(entry),
                artifacts={"model": str(model), "study": str(frozen)},
                code_paths=[str(code)],
                signature=signature(),
                input_example=example(study),
                pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
                metadata={"study": study.name, "columns": described(study)},
                tags={RUN_TAG: run},
            )
        return str(info.model_uri)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def signature() -> ModelSignature:
    """The types of what comes out.

    What goes in has none: MLflow would refuse, with rows in its message, a code as pandas'
    category, a flag that is None somewhere or a column without a value, and under its type ``any``
    it reads no CSV. The model itself checks columns, types, ranges and categories; ``described``
    tells callers what it takes.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    outputs = [ColSpec(DataType.double, "probability"), ColSpec(DataType.string, "stratum")]
    return ModelSignature(outputs=Schema(outputs))


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
                row[name] = int(value) if column.type == "integer" else float(f"{value:.3g}")
            elif column.type == "flag":
                row[name] = place
            else:
                row[name] = column.categories[-place]
        rows.append(row)
    return pd.DataFrame(rows)


def described(study: Study) -> dict[str, dict[str, Any]]:
    """What each raw column means, for those who call the model."""
    keys = {"type", "title", "unit", "range", "categories", "labels", "codes", "missing"}
    return {
        name: {
            **column.model_dump(mode="json", include=keys, exclude_defaults=True),
            "required": not column.may_be_missing,
        }
        for name, column in study.columns.items()
    }


def _file(module: str) -> Path:
    path = _PACKAGE.parent / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let MLflow, which imports what it logs, find the package in a folder."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _copied_code(folder: Path) -> tuple[Path, Path]:
    """Copy the model's module, and those that it imports, however far down, as one package.

    The package is named after its content: who loads the model may have a module ``tasks`` or
    another version of the model.

    Returns:
        The model's module and the package.
    """
    wanted, found = [ENTRY], dict[str, str]()
    while wanted:
        module = wanted.pop()
        file = _file(module)
        if module in found or not file.is_file():
            continue
        found[module] = file.read_text(encoding="utf-8")
        parts = module.split(".")
        wanted += [".".join(parts[:length]) for length in range(1, len(parts))]
        for node in ast.walk(ast.parse(found[module])):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tasks"):
                wanted += [str(node.module), *(f"{node.module}.{n.name}" for n in node.names)]
            elif isinstance(node, ast.Import):
                wanted += [name.name for name in node.names if name.name.startswith("tasks")]
    content = "\x1f".join(f"{module}\x1f{found[module]}" for module in sorted(found))
    package = f"fedrisk_model_{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    renamed = {module: _TASKS.sub(rf"\1 {package}", text) for module, text in found.items()}
    entry = folder / "pyfunc_model.py"
    entry.write_text(renamed.pop(ENTRY), encoding="utf-8")
    for module, text in renamed.items():
        target = folder / package / _file(module).relative_to(_PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return entry, folder / package
