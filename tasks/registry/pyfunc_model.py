"""The registry's model: a study's raw columns in, risk and stratum out.

MLflow keeps this file with the model (models from code) beside a copy of the modules that it
imports, so that the model loads where fedrisk is not installed. It needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # noqa: TID253  (MLflow alone loads this module, and it has pandas loaded)
from mlflow.models import set_model  # noqa: TID253  (likewise)
from mlflow.pyfunc import PythonModel, PythonModelContext  # noqa: TID253  (likewise)

from tasks.errors import DataError
from tasks.model.artifact import RiskModel
from tasks.model.raw import raw_to_features
from tasks.study import Study

HOSPITAL = "hospital"
"""The column that says whose intercept is added; without it none is."""


class RiskPyfunc(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """A risk model that takes raw columns."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model's files.

        Args:
            context: Holds the paths of ``model`` (safetensors) and ``study`` (JSON).
        """
        self._model = RiskModel.load(Path(context.artifacts["model"]))
        text = Path(context.artifacts["study"]).read_text(encoding="utf-8")
        self._study = Study.model_validate_json(text)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  (MLflow's signature)
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002  (likewise)
    ) -> pd.DataFrame:
        """Score patients.

        Args:
            context: Not used; MLflow asks for it.
            model_input: One row a patient: the study's raw columns and, if wanted, ``hospital``.
                Columns called 0, 1, ... (an array's, or Spark's that are passed without names)
                are those, in this order.
            params: Not used; MLflow asks for it.

        Returns:
            ``probability`` (0..1) and ``stratum`` (Low, Medium or High), with the input's index.

        Raises:
            DataError: A column is absent or a value is not what the study says, or a hospital is
                unknown.
        """
        rows = self._named(pd.DataFrame(model_input))
        x = raw_to_features(rows, self._study)
        logit = self._model.logits(x) + self._shift(rows)
        probability = 1 / (1 + np.exp(-logit))
        strata = self._model.strata
        stratum = np.select(
            [probability >= strata.high, probability >= strata.medium], ["High", "Medium"], "Low"
        )
        found = {"probability": probability, "stratum": stratum.astype(object)}
        return pd.DataFrame(found, index=rows.index)

    def _named(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows, with names for columns that were passed without."""
        names = [*self._study.columns, HOSPITAL]
        if list(map(str, rows.columns)) != [str(place) for place in range(rows.shape[1])]:
            return rows
        return rows.set_axis(names[: rows.shape[1]], axis="columns")

    def _shift(self, rows: pd.DataFrame) -> Any:
        """Each row's hospital's intercept, 0 where none is named."""
        if HOSPITAL in self._study.columns or HOSPITAL not in rows.columns:
            return np.zeros(len(rows))
        named = rows[HOSPITAL].astype(object)
        unknown = int((named.notna() & ~named.isin(list(self._study.hospitals))).sum())
        if unknown:
            raise DataError(
                f"column {HOSPITAL} names no hospital of study {self._study.name} in {unknown} "
                f"rows; the hospitals are {', '.join(self._study.hospitals)}. Leave it empty for "
                "a patient of another hospital."
            )
        return named.map(self._model.intercepts).fillna(0.0).to_numpy(dtype=np.float64)


set_model(RiskPyfunc())
