"""One DAG a study, ``retrain_<study>``: from each hospital's raw table to a champion.

The tasks are the steps of ``docs/steps.md``. A study whose file has a fault makes no DAG here;
``study_errors.py`` shows the fault as an import error, so that the other studies go on.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path

from airflow.sdk import DAG, TriggerRule, get_parsing_context, task_group
from upcoming_timetable import upcoming

from fedrisk_airflow.step_task import step_task
from fedrisk_airflow.study_form import form, page, plan_options
from tasks.run.known_studies import sound_studies
from tasks.run.limits import federation_limit, run_limit
from tasks.run.steps import STEPS
from tasks.settings import Settings
from tasks.study import Study

SETTINGS = Settings.from_environment()


def pooling_forbidden(study: Study) -> str | None:
    """Why there is no centralized baseline, if there is none."""
    if study.pooling == "forbidden":
        return f"study {study.name} says pooling: forbidden, so no centralized model is trained"
    return None


def set_order(dag: DAG, names: Iterable[str]) -> None:
    """Let tasks wait for those that the table of steps names."""
    for name in names:
        dag.get_task(name).set_upstream([dag.get_task(each) for each in STEPS[name].after])


def retrain(file: Path, study: Study) -> DAG:
    """Make the DAG of one study.

    Args:
        file: The study's file.
        study: The study.
    """
    federation = federation_limit(study, SETTINGS)
    step = partial(step_task, study=study, settings=SETTINGS)
    with DAG(
        f"retrain_{study.name}",
        dag_display_name=f"Retrain: {study.title}",
        description=" ".join(study.description.split())[:200] or study.title,
        doc_md=page(study),
        # A DAG that is switched on waits for its next scheduled time instead of making up for the
        # last one at once.
        schedule=upcoming(study.schedule),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(seconds=run_limit(study, SETTINGS)),
        params=form(study),
        render_template_as_native_obj=True,
        tags=["fedrisk", "retrain", study.name, study.federation.strategy],
        default_args={"owner": study.owner},
    ) as dag:
        plan = step("plan", file=str(file), options=partial(plan_options, study))
        step("champion")
        step("deal")

        at_hospital = ("collect", "validate", "features", "local", "join")

        @task_group(group_id="hospital", prefix_group_id=False)
        def hospital(name: str) -> None:
            for each in at_hospital[:-1]:
                step(each, hospital=name)
            # Beside ``federated``: with a federation of the run's own in pods this is the
            # hospital's SuperNode. A hospital that is lost for good is skipped: ``federated``
            # decides whether enough are left.
            step("join", hospital=name, soft=True, deadline=2 * federation + 300)
            set_order(dag, at_hospital)

        hospital.expand(name=plan.output)
        step("reference")
        step("central", skip_if=pooling_forbidden)
        # The longest step first where cores are few.
        step("federated", deadline=federation, priority_weight=100)
        step("score", each=True, trigger_rule=TriggerRule.NONE_FAILED).expand(hospital=plan.output)
        step("evaluate")
        step("promote")
        set_order(dag, (name for name in STEPS if name not in at_hospital))
    return dag


_wanted = get_parsing_context().dag_id
for _file, _study in sound_studies(SETTINGS):
    # A task's process needs its own DAG only.
    if _wanted in (None, f"retrain_{_study.name}"):
        globals()[f"retrain_{_study.name}"] = retrain(_file, _study)
