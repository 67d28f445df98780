"""Read the DAG folder as Airflow does, in a process of its own, and print what is there as JSON.

Airflow takes its configuration from the environment when it is imported, and whether reading DAGs
loads something heavy can only be seen in a fresh process.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

HEAVY = {"torch", "mlflow", "pyspark", "great_expectations", "flwr", "pandas", "matplotlib"}


NOW = "2026-11-01T10:00"
"""A Sunday and a first day of a month, after both studies' hours."""


def told(dag: Any) -> dict[str, Any]:
    """What the tests look at."""
    from airflow.serialization.serialized_objects import DagSerialization

    # As the scheduler has it, from the database.
    scheduled = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    following = scheduled.next_dagrun_info(last_automated_run_info=None)
    return {
        "owner": dag.owner,
        "tags": sorted(dag.tags),
        "doc": dag.doc_md,
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "schedule": scheduled.timetable.summary,
        "next": following and following.run_after.isoformat(),
        "timeout": dag.dagrun_timeout.total_seconds(),
        "params": {name: shown(dag.params.get_param(name)) for name in dag.params},
        "tasks": {
            task.task_id: {
                "kind": getattr(task, "operator_class", type(task)).__name__,
                "down": sorted(task.downstream_task_ids),
                "pool": task.pool,
                "retries": task.retries,
                "backoff": task.retry_exponential_backoff,
                "timeout": task.execution_timeout.total_seconds(),
                "rule": task.trigger_rule.value,
                "mapped": bool(task.is_mapped or task.get_closest_mapped_task_group()),
                "index": task.map_index_template,
                "doc": task.doc_md,
            }
            for task in dag.tasks
        },
    }


def shown(param: Any) -> dict[str, Any]:
    """A field of the trigger form."""
    return {**param.schema, "description": param.description}


def refusals(dag: Any, forms: list[dict[str, Any]]) -> list[bool]:
    """Whether the trigger form refuses each of some values."""
    import copy

    found = []
    for form in forms:
        params = copy.deepcopy(dag.params)
        try:
            params.update(form)
            params.validate()
        except Exception:  # noqa: BLE001  (Airflow raises one kind for the form and one for a field)
            found.append(True)
        else:
            found.append(False)
    return found


def main() -> None:
    """Print it."""
    folder, question = Path(sys.argv[1]), json.loads(sys.argv[2])
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk.timezone import parse
    from airflow.timetables import trigger

    # Airflow has put its plugins' folder on the path.
    table = importlib.import_module("upcoming_timetable")
    trigger.utcnow = table.utcnow = lambda: parse(NOW)
    bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")
    answer: dict[str, Any] = {
        "errors": bag.import_errors,
        "dags": {name: told(dag) for name, dag in bag.dags.items()},
        "heavy": sorted(HEAVY & set(sys.modules)),
    }
    if question:
        from fedrisk_airflow.study_form import plan_options
        from tasks.study import read_study

        dag = bag.dags["retrain_stroke"]
        study = read_study(folder / "studies" / "stroke.yaml")
        answer["refused"] = refusals(dag, question["forms"])
        given = [{**dict(dag.params), **form} for form in question["options"]]
        answer["options"] = [plan_options(study, form) for form in given]
        answer["codes"] = {
            "hard": [outcome(code) for code in question["codes"]],
            "soft": [outcome(code, Try(1, 2)) for code in question["codes"]],
            "last": [outcome(code, Try(3, 2)) for code in question["codes"]],
        }
    print("ANSWER" + json.dumps(answer))


class Try(NamedTuple):
    """The part of a task instance that says whether it is tried again."""

    try_number: int
    max_tries: int


def outcome(code: int, soft: Try | None = None) -> str:
    """The exception that an exit code becomes."""
    from fedrisk_airflow.step_outcome import raise_for
    from tasks.run.ending import Ending

    try:
        raise_for(Ending(step="deal", code=code, message="why", log="/log", seconds=1), soft)
    except Exception as error:  # noqa: BLE001  (its kind is the answer)
        return f"{type(error).__name__}: {error}"
    return "none"


if __name__ == "__main__":
    main()
