"""Where things live and which launcher runs the steps, from the environment.

Every setting is an environment variable ``FEDRISK_*``. Unknown ones are rejected, so that a
misspelt setting does not silently fall back to its default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import SettingsError

PREFIX = "FEDRISK_"


class Settings(BaseModel):
    """The settings of one process.

    Attributes:
        home: The one folder for all files, unless another setting says otherwise.
        launcher: How steps run.
        lake: Root of a hospital's lake; ``{hospital}`` stands for the hospital's name. A path,
            ``file://`` or ``s3a://`` URI. A hospital's step gets its own hospital's root only.
        studies: Folder of the study files, one YAML each.
        mlflow_uri: Tracking and registry URI; empty for SQLite below ``home``.
        engine: What runs the data steps; overrides the study's unless empty.
        java_home: Java 17 or newer for Spark; empty to search for one.
        engine_memory: Memory of the data steps' engine (DuckDB, or Spark's driver), as Java writes
            it (``1g``, ``1536m``); of more rows DuckDB keeps some on the local disk.
        spark_master: Spark's master URL.
        step_deadline: Seconds after which a launched step is terminated.
        store: Where machines share runs, ``s3://bucket[/prefix]`` or ``file://``; empty for
            this machine's ``home`` alone.
        federation: ``run``: each run starts its own SuperLink; ``standing``: runs are submitted
            to a long-running one.
        identity: Folder with this party's key and certificates; empty to make them for each run.
        registered: Folder of the public keys, ``<hospital>.pub`` each, of hospitals that may join.
        superlink: ``host:port`` at which hospitals reach the SuperLink.
        credentials: File of ``AWS_*`` lines for a launched step's owner, with ``{owner}`` in its
            path; empty for this process's own.
        approved: The hospital's file of approved studies; empty to approve all.
        namespace: Kubernetes namespace of the pods.
        images: Name of an image, with ``{image}`` in it; by default the last local build.
        compute: Compute profile of the pods; overrides the study's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Path(".fedrisk")
    launcher: Literal["process", "compose", "kubernetes"] = "process"
    lake: str = ""
    studies: Path = Path("dags/studies")
    mlflow_uri: str = ""
    engine: Literal["", "auto", "local", "spark"] = ""
    java_home: str = ""
    engine_memory: str = Field(default="1g", pattern=r"^[1-9][0-9]*[kmgKMG]$")
    spark_master: str = "local[2]"
    step_deadline: float = Field(default=3600, gt=0)
    store: str = Field(default="", pattern=r"^((s3|file)://\S+)?$")
    federation: Literal["run", "standing"] = "run"
    identity: str = ""
    registered: str = ""
    superlink: str = Field(default="", pattern=r"^(\S+:\d+)?$")
    credentials: str = ""
    approved: str = ""
    namespace: str = "fedrisk"
    images: str = "fedrisk-{image}:dev"
    compute: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings.

        Args:
            environment: The variables to read; this process's by default.

        Raises:
            SettingsError: A ``FEDRISK_*`` variable is unknown or its value is not valid.
        """
        source = os.environ if environment is None else environment
        given = {
            key.removeprefix(PREFIX).lower(): value
            for key, value in source.items()
            if key.startswith(PREFIX)
        }
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = PREFIX + str(first["loc"][0]).upper()
            known = ", ".join(PREFIX + field.upper() for field in cls.model_fields)
            raise SettingsError(f"{name}: {first['msg']}. The settings are {known}.") from None
        return settings.model_copy(
            update={"home": settings.home.absolute(), "studies": settings.studies.absolute()}
        )

    @property
    def runs(self) -> Path:
        """Folder of the runs, one subfolder each: manifests, artifacts and reports."""
        return self.home / "runs"

    def lake_root(self, hospital: str) -> str:
        """URI of one hospital's lake.

        Args:
            hospital: The hospital's name.
        """
        template = self.lake or str(self.home / "lake" / "{hospital}")
        # Spark rewrites file:///a as file:/a and then treats the two as different paths.
        return template.removeprefix("file://").replace("{hospital}", hospital)

    def table(self, hospital: str, study: str, layer: str) -> str:
        """URI of one Delta table.

        Args:
            hospital: The hospital's name.
            study: The study's name.
            layer: ``bronze``, ``silver``, ``quarantine`` or ``gold``.
        """
        return f"{self.lake_root(hospital)}/{study}/{layer}"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry URI."""
        return self.mlflow_uri or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"
