"""Both ends of the protocol in one process: the real server, the real hospitals, no network."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Mapping

import numpy as np
from small_federation import ROWS, gold_table, part_rows

from tasks.federation.hospital.client import Hospital
from tasks.federation.hospital.config import HospitalConfig
from tasks.federation.hospital.training_rows import TrainingRows
from tasks.federation.messages import Question, Refusal, Task
from tasks.federation.server.run_state import PartRows, ServerConfig
from tasks.federation.server.transport import Replies
from tasks.federation.wire import Wire, size_of
from tasks.study import Study


def hospital_of(study: Study, name: str, lake: str = "") -> Hospital:
    """A hospital with its small table, which remembers in a folder of its own."""
    table = gold_table(study, name, ROWS[name])
    names = [feature.name for feature in study.features]
    x = np.stack([table.column(n).to_numpy(zero_copy_only=False) for n in names], axis=1)
    y = table.column("label").to_numpy().astype(np.float32)
    part = np.array(table.column("part").to_pylist())
    train, validation = part == "train", part == "validation"
    own = tempfile.mkdtemp(prefix="fedrisk-lake-")
    lake = lake or f"file://{own}"
    config = HospitalConfig(
        hospital=name, gold="none", version=0, study=study, lake=lake, state="state/r1"
    )
    hospital = Hospital(config, TrainingRows(x[train], y[train], x[validation], y[validation]))
    weakref.finalize(hospital, shutil.rmtree, own, ignore_errors=True)
    return hospital


def config_of(study: Study, fingerprint: str = "f") -> ServerConfig:
    """The server's configuration for the small hospitals."""
    rows = {name: PartRows(**part_rows(ROWS[name])) for name in ROWS}
    nodes = dict.fromkeys(ROWS, 1)
    return ServerConfig(
        study=study, hospitals=list(ROWS), rows=rows, nodes=nodes, fingerprint=fingerprint
    )


class DirectTransport:
    """Hospitals that answer at once; ``silent`` says whose answers are lost, by round."""

    def __init__(self, study: Study, silent: Mapping[int, Collection[str]] | None = None) -> None:
        self.hospitals = {name: hospital_of(study, name) for name in ROWS}
        self.silent = dict(silent or {})
        self.away: dict[str, str] = {}
        self.asked: list[tuple[str, int, list[str]]] = []
        self.changed: dict[str, Callable[[Wire], Wire]] = {}
        """What becomes of a hospital's answers to ``train`` on their way."""
        self.joins_late: dict[str, int] = {}
        """How often a hospital is asked before it has joined the run."""

    def present(self) -> set[str]:
        return set(self.hospitals) - set(self.away)

    def gone(self) -> dict[str, str]:
        return self.away

    def ask(
        self,
        question: Question,
        tasks: Mapping[str, Task],
        *,
        deadline: float,
        missed: Mapping[str, int] | None = None,
        needed: int = 1,
    ) -> Replies:
        number = max((task.round for task in tasks.values()), default=0)
        self.asked.append((question.value, number, sorted(tasks)))
        found = Replies(bytes_down=sum(size_of(task.encode()) for task in tasks.values()))
        # Replies in the reverse order: it must not matter.
        for name in sorted(tasks, reverse=True):
            if self.joins_late.get(name, 0):
                self.joins_late[name] -= 1
                found.add(name, Refusal("NotJoined: not yet", later=True).encode())
                continue
            wire = self.hospitals[name].answer(question, tasks[name].encode())
            if question is Question.TRAIN and name in self.silent.get(number, ()):
                found.time_out(name)
            elif question is Question.TRAIN and "refusal" not in wire:
                found.add(name, self.changed.get(name, dict)(wire))
            else:
                found.add(name, wire)
        return found
