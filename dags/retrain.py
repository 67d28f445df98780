"""One DAG a study, ``retrain_<study>``: from each hospital's raw table to a champion.

The tasks are the steps of ``docs/steps.md``. A study whose file has a fault makes no DAG here;
``study_errors.py`` shows the fault as an import error, so that the other studies go on.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path

from airflow.sdk import DAG, TriggerRule, get_parsing_context, task_group
from step_task import step_task
from study_form import form, page, plan_options
from upcoming_timetable import upcoming

from tasks.embedded.studies import sound_studies
from tasks.plan import federation_limit, run_limit
from tasks.settings import Settings
from tasks.study import Study

SETTINGS = Settings.from_environment()


def pooling_forbidden(study: Study) -> str | None:
    """Why there is no centralized baseline, if there is none."""
    if study.pooling == "forbidden":
        return f"study {study.name} says pooling: forbidden, so no centralized model is trained"
    return None


def retrain(file: Path, study: Study) -> DAG:
    """Make the DAG of one study.

    Args:
        file: The study's file.
        study: What it says.
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
        champion = step("champion")
        deal = step("deal")

        @task_group(group_id="hospital", prefix_group_id=False)
        def hospital(name: str) -> None:
            collect, validate, features, local = (
                step(each, hospital=name) for each in ("collect", "validate", "features", "local")
            )
            # Beside ``federated``: with a federation of the run's own in pods this is the
            # hospital's SuperNode. A hospital that is lost for good is skipped, for whether enough
            # are left is for ``federated`` to say.
            join = step("join", hospital=name, soft=True, deadline=2 * federation + 300)
            collect >> validate >> features >> [local, join]

        at_hospitals = hospital.expand(name=plan.output)
        features, local, join = (dag.get_task(each) for each in ("features", "local", "join"))
        reference = step("reference")
        central = step("central", skip_if=pooling_forbidden)
        # The longest step first where cores are few.
        federated = step("federated", deadline=federation, priority_weight=100)
        score = step("score", each=True, trigger_rule=TriggerRule.NONE_FAILED).expand(
            hospital=plan.output
        )
        evaluate, promote = step("evaluate"), step("promote")

        plan >> [champion, deal]
        deal >> at_hospitals
        features >> [reference, central, federated]
        [champion, reference, central, local, federated, join] >> score >> evaluate >> promote
    return dag


_wanted = get_parsing_context().dag_id
for _file, _study in sound_studies(SETTINGS):
    # A task's process needs its own DAG only.
    if _wanted in (None, f"retrain_{_study.name}"):
        globals()[f"retrain_{_study.name}"] = retrain(_file, _study)
