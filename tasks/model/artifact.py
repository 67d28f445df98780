"""A trained model as one value and one file: everything that scores a patient, and nothing else.

The file is safetensors: arrays and one JSON text, no code, the same bytes for the same model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tasks.errors import DataError
from tasks.files import write_atomically
from tasks.model.forward import logits as network_logits
from tasks.model.forward import parameter_count, sigmoid
from tasks.model.scaling import Scaler
from tasks.study import Model, Strata

FORMAT = 1


@dataclass(frozen=True)
class RiskModel:
    """A model of one study.

    Attributes:
        kind: ``network``, or ``logistic``: a linear predictor.
        study: The study's name.
        features: The names of the study's features, in order.
        model: The network's form (of no meaning to a linear predictor).
        scaler: Applied to raw features first.
        flat: Parameters: those of the network (``forward.layout``), or d weights and the
            intercept.
        threshold: Probability from which a patient counts as positive.
        strata: Bounds of the risk strata.
        intercepts: Added to the logit at that hospital.
    """

    kind: Literal["network", "logistic"]
    study: str
    features: tuple[str, ...]
    model: Model
    scaler: Scaler
    flat: NDArray[np.float32]
    threshold: float
    strata: Strata = field(default_factory=Strata)
    intercepts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        width = len(self.features)
        wanted = parameter_count(self.model, width) if self.kind == "network" else width + 1
        if self.flat.shape != (wanted,) or self.scaler.mean.shape != (width,):
            raise DataError(
                f"a {self.kind} model of {width} features has {wanted} parameters and {width} "
                f"means, not {self.flat.shape} and {self.scaler.mean.shape}."
            )
        if self.scaler.std.shape != (width,) or not (self.scaler.std > 0).all():
            raise DataError(f"the scaler's spread must be {width} numbers above 0.")
        if not (np.isfinite(self.flat).all() and np.isfinite(self.scaler.mean).all()):
            raise DataError("the model's parameters are not all finite.")

    def logits(self, x: NDArray[np.float64], hospital: str | None = None) -> NDArray[np.float64]:
        """Log-odds of raw rows.

        Args:
            x: Features as a gold table holds them, shape (n, d), NaN where missing.
            hospital: Whose intercept is added, if the model has one for it.

        Returns:
            Shape (n,).

        Raises:
            DataError: The rows have another number of features.
        """
        width = len(self.features)
        if x.ndim != 2 or x.shape[1] != width:
            raise DataError(f"the model takes {width} features, the rows are {x.shape}.")
        z = self.scaler.transform(x)
        if self.kind == "network":
            found = network_logits(self.model, width, self.flat, z)
        else:
            found = z.astype(np.float64) @ self.flat[:-1].astype(np.float64) + float(self.flat[-1])
        return found + (self.intercepts.get(hospital, 0.0) if hospital else 0.0)

    def probability(
        self, x: NDArray[np.float64], hospital: str | None = None
    ) -> NDArray[np.float64]:
        """Risk of raw rows, in 0..1; see ``logits``."""
        return sigmoid(self.logits(x, hospital))

    def to_bytes(self) -> bytes:
        """The model as a safetensors file."""
        from safetensors.numpy import save

        about = {
            "format": FORMAT,
            "kind": self.kind,
            "study": self.study,
            "features": list(self.features),
            "model": self.model.model_dump(mode="json"),
            "threshold": self.threshold,
            "strata": self.strata.model_dump(mode="json"),
            "intercepts": self.intercepts,
        }
        arrays = {
            "flat": np.ascontiguousarray(self.flat, dtype=np.float32),
            "mean": np.ascontiguousarray(self.scaler.mean, dtype=np.float64),
            "std": np.ascontiguousarray(self.scaler.std, dtype=np.float64),
        }
        # One key: safetensors writes several in no fixed order.
        return bytes(save(arrays, metadata={"fedrisk": json.dumps(about, sort_keys=True)}))

    @classmethod
    def from_bytes(cls, content: bytes, name: str = "model") -> RiskModel:
        """Read what ``to_bytes`` made.

        Args:
            content: The file.
            name: What messages call it.

        Raises:
            DataError: It is no model file, or of another format.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(content)
            length = int.from_bytes(content[:8], "little")
            about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["fedrisk"])
            if about["format"] != FORMAT:
                raise DataError(
                    f"{name}: a model file of format {about['format']}; this version reads "
                    f"{FORMAT}."
                )
            return cls(
                kind=about["kind"],
                study=about["study"],
                features=tuple(about["features"]),
                model=Model.model_validate(about["model"]),
                scaler=Scaler(arrays["mean"], arrays["std"]),
                flat=arrays["flat"],
                threshold=float(about["threshold"]),
                strata=Strata.model_validate(about["strata"]),
                intercepts={str(k): float(v) for k, v in about["intercepts"].items()},
            )
        except (SafetensorError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise DataError(
                f"{name}: not a fedrisk model ({type(error).__name__}); the file is damaged or "
                "something else. Run the step that makes it again."
            ) from error

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        write_atomically(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> RiskModel:
        """Read a file.

        Raises:
            DataError: It is absent or no model file.
        """
        if not path.is_file():
            raise DataError(f"{path}: no model file.")
        return cls.from_bytes(path.read_bytes(), str(path))
