"""A real federation in which something goes wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from deltalake import write_deltalake
from small_federation import Step, features_manifest, gold_table, make_context
from tests_processes import runs

from tasks.federation.deployment.certificates import make_node_key
from tasks.federation.deployment.commands import run_environment
from tasks.federation.deployment.local import free_ports
from tasks.model.artifact import RiskModel

pytestmark = pytest.mark.slow


def test_a_killed_supernode_costs_its_share_and_the_run_says_so(home: Path) -> None:
    step = Step(make_context(home, "killed", rounds=8)).start()
    step.until_round(2)
    step.supernode("west").kill()
    assert step.wait() == 0, step.output
    events = step.events()
    assert [event.round for event in events] == list(range(1, 9))
    assert events[-1].replied == ["north", "south"]
    manifest = step.context.run.read("federated")
    assert manifest.figures["participation"]["north"] == 8
    assert manifest.figures["participation"]["west"] < 8
    assert "west" in "".join(manifest.notes)
    # It is dropped as soon as its process has ended, not when the round's deadline passes.
    assert "west: its SuperNode ended" in step.output
    assert set(manifest.figures["intercepts"]) == {"north", "south"}
    assert step.left() == []


def test_two_of_three_killed_ends_with_code_4_and_keeps_a_checkpoint(home: Path) -> None:
    step = Step(make_context(home, "two-killed", rounds=8)).start()
    step.until_round(2)
    for process in [step.supernode("west"), step.supernode("south")]:
        process.kill()
    assert step.wait() == 4, step.output
    assert "at least 2 hospitals" in step.output
    assert step.context.run.find("federated") is None
    assert (step.folder / "checkpoint.npz").exists()
    assert step.left() == []


def test_a_hospital_that_hangs_costs_one_deadline_and_rejoins(home: Path) -> None:
    # Long enough for the others: a round of theirs has taken 23 s on a slow and busy machine.
    deadline = 45.0
    step = Step(make_context(home, "rejoins", rounds=12, deadlines={"round": deadline})).start()
    step.until_round(1)
    stopped = step.supernode("north")
    stopped.suspend()
    while not any("north" in event.lost for event in step.events()):
        step.until_round(len(step.events()) + 1)
    stopped.resume()
    assert step.wait() == 0, step.output
    events = step.events()
    [late] = [event for event in events if event.seconds >= deadline]
    assert "no answer in time" in late.lost["north"]
    assert "north" in events[-1].replied
    assert step.context.run.read("federated").figures["lost"]["north"]
    assert not stopped.is_running()
    assert step.left() == []


def test_nothing_outlives_a_step_that_is_killed(home: Path) -> None:
    step = Step(make_context(home, "killed-step", rounds=400)).start()
    step.until_round(1)
    hung = step.supernode("north")
    hung.suspend()
    step.signal(signal.SIGKILL)
    assert step.wait() != 0
    assert step.left() == []
    assert not runs(hung.pid)
    assert step.context.run.find("federated") is None


def test_a_refusing_hospital_is_named_without_its_values(home: Path) -> None:
    context = make_context(home, "refuses", rounds=2)
    table = gold_table(context.study, "west", 60).drop_columns(["sugar"])
    secret = table.column("pressure")[0].as_py()
    uri = str(home / "broken" / "gold")
    write_deltalake(uri, table)
    context.run.write(features_manifest("refuses", "west", uri, 60))
    step = Step(context).start()
    assert step.wait() == 0, step.output
    event = step.events()[0]
    assert event.replied == ["north", "south"]
    assert "DataError" in event.lost["west"]
    assert "sugar" in event.lost["west"]
    assert "west: DataError" in step.output
    assert str(secret) not in step.output
    assert RiskModel.load(step.folder / "model.safetensors").intercepts.keys() == {"north", "south"}


def test_a_dead_server_ends_the_step_and_a_rerun_goes_on(home: Path) -> None:
    # Rounds enough that some are left when the process has been found, on however slow a machine.
    step = Step(make_context(home, "dead-server", rounds=12)).start()
    # An event is told before its checkpoint is kept: only the second says that the first is kept.
    step.until_round(2)
    step.server_app().kill()
    assert step.wait() == 4, step.output
    assert "superlink ended" in step.output
    assert step.left() == []
    done = len(step.events())
    again = Step(step.context).start()
    assert again.wait() == 0, again.output
    assert [event.round for event in again.events()] == list(range(1, 13))
    # The last event that the dead one told may be told anew.
    notes = [event.note for event in again.events()[done - 1 : done + 1]]
    assert any(note.startswith("resumed after round") for note in notes)


def test_a_key_that_is_not_registered_cannot_join_and_sigterm_ends_all(
    home: Path, tmp_path: Path
) -> None:
    # More rounds than the other needs to start and to be refused.
    context = make_context(home, "intruder", rounds=400)
    step = Step(context).start()
    step.until_round(1)
    private = step.folder / "private"
    told = step.supernode("west").cmdline()
    superlink = told[told.index("--superlink") + 1]
    key, _ = make_node_key(tmp_path)
    [port] = free_ports(1)
    command = [str(Path(sys.executable).parent / "flower-supernode")]
    command += ["--superlink", superlink, "--port", str(port), "--max-retries", "1"]
    command += ["--root-certificates", str(private / "superlink" / "ca.crt")]
    command += ["--auth-supernode-private-key", str(key)]
    with (tmp_path / "intruder.log").open("wb") as log:
        intruder = subprocess.Popen(
            command,
            env=run_environment(context.settings, tmp_path / "flower", None),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            assert intruder.wait(400) != 0, (tmp_path / "intruder.log").read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(intruder.pid, signal.SIGKILL)
    text = (tmp_path / "intruder.log").read_text()
    assert "SuperNode ID" not in text, text
    assert "Failed to activate SuperNode" in text, text
    assert all(event.replied == ["north", "south", "west"] for event in step.events())
    hung = step.supernode("north")
    hung.suspend()
    step.signal(signal.SIGTERM)
    assert step.wait() != 0
    assert step.left() == []
    assert not runs(hung.pid)
    assert context.run.find("federated") is None


@pytest.mark.platform
def test_flowers_own_executor_gives_the_same_model(home: Path, finished: Step) -> None:
    step = Step(make_context(home, "stock", executor="stock"))
    assert step.start().wait() == 0, step.output
    models = [(s.folder / "model.safetensors").read_bytes() for s in (step, finished)]
    assert models[0] == models[1]
    assert step.left() == []
