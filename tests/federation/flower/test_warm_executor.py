"""What the warm executor uses of Flower's private API: an upgrade must fail here, not in a run."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from tasks.federation.flower.warm_executor import FLOWER, ForkExecutor


def test_flower_is_the_version_that_the_executor_is_written_for() -> None:
    assert version("flwr") == FLOWER, (
        "flwr has changed: read tasks/federation/flower/ against it, run the slow tests, then "
        " change FLOWER; federation.executor: stock works meanwhile"
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
    end = time.monotonic() + 400
    while executor._children and time.monotonic() < end:
        executor.reconcile()
        time.sleep(0.02)
    task, pid = done.read_text().split()
    assert task == "task"
    assert int(pid) != os.getpid()
    assert not executor._children


def test_an_unregistered_key_is_shut_out_until_it_is_registered_again() -> None:
    from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.superlink.federation import NoOpFederationManager

    from tasks.federation.flower.superlink_patches import forget_unregistered_keys

    stock = InMemoryLinkState.delete_node
    state = InMemoryLinkState(NoOpFederationManager(), ObjectStoreFactory().store())
    try:
        first = state.create_node("", "", b"key", 30)
        forget_unregistered_keys()
        state.delete_node("", first)
        assert state.get_node_id_by_public_key(b"key") is None
        assert not state.activate_node(first, 30)
        again = state.create_node("", "", b"key", 30)
        assert again != first
        assert state.get_node_id_by_public_key(b"key") == again
    finally:
        InMemoryLinkState.delete_node = stock


def test_a_fork_that_cannot_be_made_fails_its_task_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("os.fork", no_fork)
    result = ForkExecutor(print).launch("task")
    assert str(result.status) == "failed"


def test_a_process_ends_when_the_fork_that_it_needs_has_ended() -> None:
    code = (
        "import time; from tasks.federation.flower.warm_executor import _fork;"
        "_fork(lambda: None, 'SuperExec'); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400)
    assert done.returncode == 1
    assert "the SuperExec ended with wait status 0" in done.stdout
