"""Both ends of the protocol in one process: the real server, the real hospitals, no network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from small_federation import ROWS, gold_table

from tasks.federation.hospital.client import Hospital
from tasks.federation.hospital.config import HospitalConfig
from tasks.federation.hospital.training_rows import TrainingRows
from tasks.federation.messages import Refusal
from tasks.federation.server.transport import Answers
from tasks.federation.wire import Wire, size_of
from tasks.study import Study


def hospital_of(study: Study, name: str) -> Hospital:
    """A hospital with its small table."""
    table = gold_table(study, name, ROWS[name])
    names = [feature.name for feature in study.features]
    x = np.stack([table.column(n).to_numpy(zero_copy_only=False) for n in names], axis=1)
    y = table.column("label").to_numpy().astype(np.float32)
    part = np.array(table.column("part").to_pylist())
    train, validation = part == "train", part == "validation"
    config = HospitalConfig(hospital=name, gold="none", version=0, study=study)
    return Hospital(config, TrainingRows(x[train], y[train], x[validation], y[validation]))


class DirectLink:
    """Hospitals that answer at once; ``silent`` says who does not, by round."""

    def __init__(self, study: Study, silent: Mapping[int, Collection[str]] | None = None) -> None:
        self.hospitals = {name: hospital_of(study, name) for name in ROWS}
        self.silent = silent or {}
        self.away: dict[str, str] = {}
        self.asked: list[tuple[str, int, list[str]]] = []
        self.changed: dict[str, Any] = {}
        self.joins_late: dict[str, int] = {}
        """How often a hospital is asked before it has joined the run."""

    def present(self) -> set[str]:
        return set(self.hospitals) - set(self.away)

    def gone(self) -> dict[str, str]:
        return self.away

    def ask(
        self,
        question: str,
        tasks: Mapping[str, Wire],
        *,
        number: int,
        deadline: float,
        doubtful: Mapping[str, int] | None = None,
        needed: int = 1,
    ) -> Answers:
        self.asked.append((question, number, sorted(tasks)))
        found = Answers(bytes_down=sum(size_of(task) for task in tasks.values()))
        # Answers in the reverse order: it must not matter.
        for name in sorted(tasks, reverse=True):
            if question == "train" and name in self.silent.get(number, ()):
                found.lost[name] = "no answer in time"
                found.late.add(name)
                continue
            if self.joins_late.get(name, 0):
                self.joins_late[name] -= 1
                found.take(name, Refusal("NotJoined: not yet", later=True).encode())
                continue
            wire = self.hospitals[name].answer(question, tasks[name])
            changed = {} if "refusal" in wire else self.changed.get(name, {})
            found.take(name, {**wire, **changed})
        return found
