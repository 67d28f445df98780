"""What a federated run is: made once when the step ``federated`` begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.federation.server.run_state import PartRows, ServerConfig
from tasks.run.manifest import TableVersion
from tasks.run.step import Context
from tasks.study import Study


@dataclass(frozen=True)
class FederationRun:
    """One federated run.

    Attributes:
        run: The run's id.
        study: Its frozen study.
        tables: The version of each hospital's gold table.
        rows: Rows of each.
        fingerprint: Of the study and the tables' versions: what a checkpoint belongs to.
    """

    run: str
    study: Study
    tables: Mapping[str, TableVersion]
    rows: Mapping[str, PartRows]
    fingerprint: str

    @classmethod
    def of(cls, context: Context) -> FederationRun:
        """Read the manifests that the hospitals' steps ``features`` have left.

        Args:
            context: The step's.

        Raises:
            DataError: One has left none.
        """
        tables, rows = {}, {}
        for name in context.plan.hospitals:
            manifest = context.run.read("features", name)
            parts = manifest.figures["parts"]
            tables[name] = manifest.tables["gold"]
            rows[name] = PartRows(
                train=parts["train"]["rows"], validation=parts["validation"]["rows"]
            )
        text = json.dumps([context.study.digest(), {n: t.version for n, t in tables.items()}])
        fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        return cls(context.run.run, context.study, tables, rows, fingerprint)

    @property
    def hospitals(self) -> list[str]:
        """Those of the run."""
        return list(self.tables)

    def server_config(self, nodes: Mapping[str, int], *, shared: bool) -> ServerConfig:
        """The server's configuration.

        Args:
            nodes: Node id by hospital.
            shared: Whether checkpoints go to a store.
        """
        return ServerConfig(
            study=self.study,
            hospitals=self.hospitals,
            rows=dict(self.rows),
            nodes=dict(nodes),
            fingerprint=self.fingerprint,
            shared=shared,
        )
