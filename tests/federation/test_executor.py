"""What the warm executor uses of Flower's private API: an upgrade must fail here, not in a run."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version

from tasks.federation.executor import FLOWER, ForkExecutor


def test_flower_is_the_version_that_the_executor_is_written_for() -> None:
    assert version("flwr") == FLOWER, (
        "flwr has changed: read tasks/federation/executor.py against it, run the slow tests, "
        "then change FLOWER; federation.executor: stock works meanwhile"
    )


def test_the_executor_offers_all_of_flowers_protocol() -> None:
    from flwr.supercore.superexec.executor import Executor

    wanted = {
        name for name, _ in inspect.getmembers(Executor, inspect.isfunction) if name[0] != "_"
    }
    assert wanted == {
        *("get_eligible_capacity", "wait_for_capacity", "launch", "reconcile", "close"),
    }
    assert all(callable(getattr(ForkExecutor, name)) for name in wanted)


def test_the_names_that_are_replaced_are_there_and_used() -> None:
    from flwr.supercore.exit import exit_handler
    from flwr.supercore.inflatable import inflatable_utils
    from flwr.supercore.superexec import run_superexec
    from flwr.supernode import start_client_internal
    from flwr.supernode.runtime import run_clientapp

    source = inspect.getsource(start_client_internal)
    assert len(re.findall(r"\btime\.\w", source)) == source.count("time.sleep(") == 3
    assert isinstance(exit_handler.registered_exit_handlers, list)
    for pull in (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree):
        assert {"initial_backoff", "backoff_cap", "max_time"} <= set(pull.__kwdefaults__ or {})
    used = inspect.getsource(run_clientapp.run_clientapp)
    for name in ("install_from_fab(", "get_project_dir(", "get_load_client_app_fn("):
        assert name in used
    assert "get_executor(" in inspect.getsource(run_superexec.run_superexec)


def test_a_fork_runs_and_is_reaped(tmp_path: object) -> None:
    import os
    import time
    from pathlib import Path

    done = Path(str(tmp_path)) / "done"
    executor = ForkExecutor(lambda spec: done.write_text(f"{spec} {os.getpid()}") and None)
    executor.launch("task")
    end = time.monotonic() + 10
    while executor._children and time.monotonic() < end:
        executor.reconcile()
        time.sleep(0.02)
    task, pid = done.read_text().split()
    assert task == "task"
    assert int(pid) != os.getpid()
    assert not executor._children
