"""The steps of a run in this process, without Airflow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.federation import federated
from tasks.federation.federation_run import FederationRun
from tasks.federation.hospital.client import Hospital
from tasks.federation.hospital.config import hospital_config
from tasks.federation.hospital.training_rows import read_training_rows
from tasks.federation.messages import Question, Task
from tasks.federation.server.outcome import Outcome
from tasks.federation.server.training import train_federated
from tasks.federation.server.transport import Replies
from tasks.federation.wire import size_of
from tasks.run.folder import RunFolder
from tasks.run.plan import Plan, Request, make_plan
from tasks.run.step import Context, run_step
from tasks.run.steps import STEPS
from tasks.settings import Settings

Steps = Callable[..., tuple[Plan, RunFolder]]


class InProcess:
    """Hospitals of this process, which answer at once."""

    def __init__(self, hospitals: Mapping[str, Hospital]) -> None:
        self._hospitals = hospitals

    def present(self) -> set[str]:
        return set(self._hospitals)

    def gone(self) -> dict[str, str]:
        return {}

    def ask(self, question: Question, tasks: Mapping[str, Task], **_: Any) -> Replies:
        asked = {name: task.encode() for name, task in tasks.items()}
        found = Replies(bytes_down=sum(map(size_of, asked.values())))
        for name, wire in asked.items():
            found.add(name, self._hospitals[name].answer(question, wire))
        return found


def train_in_process(run: FederationRun, context: Context, folder: Path, _: object) -> Outcome:
    """A run's own federation, without Flower's processes."""
    torch.set_num_threads(1)
    hospitals = {}
    for name, table in run.tables.items():
        about = hospital_config(context.settings, run.run, run.study, name, table)
        hospitals[name] = Hospital(about, read_training_rows(about))
    config = run.server_config(dict.fromkeys(hospitals, 0), shared=False)
    return train_federated(config, InProcess(hospitals), folder)


@pytest.fixture(scope="session")
def run_steps(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Steps:
    """Do all steps of a run, one after the other; its federation is in this process, or real."""
    folder = tmp_path_factory.mktemp("steps")
    settings = Settings.from_environment(
        {"FEDRISK_HOME": str(folder), "FEDRISK_STUDIES": str(checkout / "dags" / "studies")}
    )

    # Nobody is left out of a round because other tests use the machine.
    patient = ["federation.deadlines.ready=600", "federation.deadlines.round=600"]

    def run(
        name: str,
        *,
        until: str = "evaluate",
        only: Collection[str] = STEPS,
        real: bool = False,
        **request: Any,
    ) -> tuple[Plan, RunFolder]:
        asked = Request(**{"study": "stroke", "overrides": patient, **request})
        plan = make_plan(asked, name, settings)
        with pytest.MonkeyPatch.context() as patch:
            if not real:
                patch.setattr(federated, "_own_federation", train_in_process)
            for step, what in STEPS.items():
                for hospital in plan.hospitals if what.each_hospital else [None]:
                    if step in only:
                        run_step(step, name, settings, hospital)
                if step == until:
                    break
        return plan, RunFolder(settings.runs, name)

    return run
