"""A run's server that will not come back, and the hospitals that would have waited for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_federation import make_context

from tasks.errors import ExitCode, FedriskError, StudyError
from tasks.federation import federated as launch
from tasks.federation.deployment.certificates import make_certificates, make_node_key
from tasks.federation.join import _OverSometimes
from tasks.federation.server_status import ENDED, ServerEnded, is_ended, mark_ended, unmark_ended
from tasks.run.manifest import Manifest
from tasks.run.step import Context, run_step
from tasks.run.stored_run import open_run


def stored(tmp_path: Path, **federation: str) -> Context:
    """A run that is shared through a store, of a federation whose hospitals come by themselves."""
    made = make_context(tmp_path / "home", **federation)
    settings = made.settings.model_copy(
        update={"store": f"file://{tmp_path / 'store'}", "superlink": "127.0.0.1:9"}
    )
    run = open_run(settings, made.run.run)
    run.upload("plan.json")
    for name in made.plan.hospitals:
        found = made.run.read("features", name)
        open_run(settings, made.run.run, name).write(found)
    return Context(made.plan, run, settings, None)


@pytest.mark.parametrize("shared", [True, False])
def test_the_mark_is_left_seen_and_taken_away(tmp_path: Path, shared: bool) -> None:
    context = stored(tmp_path) if shared else make_context(tmp_path / "home")
    settings, run = context.settings, context.run.run
    for _ in range(2):
        assert not is_ended(settings, run)
        mark_ended(settings, run)
        assert is_ended(settings, run)
        unmark_ended(settings, run)
    assert not is_ended(settings, run)
    unmark_ended(settings, run)


def test_a_hospital_waits_until_the_model_is_there(tmp_path: Path) -> None:
    context = stored(tmp_path)
    over = _OverSometimes(context.run, context_of(context, "north"))
    assert not over()
    context.run.write(Manifest(step="federated", study="small", run=context.run.run))
    # The model counts, whatever was said before it.
    mark_ended(context.settings, context.run.run)
    over._next = 0.0
    assert over()


def test_a_hospital_whose_server_will_not_come_back_has_not_done_its_step(tmp_path: Path) -> None:
    context = stored(tmp_path)
    over = _OverSometimes(context.run, context_of(context, "north"))
    assert not over()
    mark_ended(context.settings, context.run.run)
    over._next = 0.0
    with pytest.raises(ServerEnded, match="will not come back") as raised:
        over()
    assert raised.value.exit_code == ExitCode.REFUSED


def context_of(context: Context, hospital: str) -> Context:
    return Context(context.plan, context.run, context.settings, hospital)


@pytest.mark.slow
def test_join_ends_soon_and_is_open_to_another_try(tmp_path: Path) -> None:
    """With a real SuperNode, and nobody at the server's address."""
    context = stored(tmp_path)
    identity = tmp_path / "identity"
    identity.mkdir()
    make_node_key(identity)
    authority = make_certificates(tmp_path / "superlink").authority
    (identity / "ca.crt").write_bytes(authority.read_bytes())
    settings = context.settings.model_copy(update={"identity": str(identity)})
    run = context.run.run
    mark_ended(settings, run)
    with pytest.raises(ServerEnded):
        run_step("join", run, settings, "north")
    assert open_run(settings, run).find("join", "north") is None
    unmark_ended(settings, run)
    open_run(settings, run).write(Manifest(step="federated", study="small", run=run))
    assert run_step("join", run, settings, "north").figures["starts"] == 1


def test_a_new_try_of_the_server_takes_the_mark_away_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetched with the checkpoint it would go back into the store with the next one."""
    context = stored(tmp_path)
    mark_ended(context.settings, context.run.run)
    seen: list[bool] = []

    def train(run: object, context: Context, folder: Path, sink: object) -> None:
        assert folder.is_dir()
        context.run.upload_step("federated")
        seen.append(is_ended(context.settings, context.run.run))
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_own_federation", train)
    with pytest.raises(KeyboardInterrupt):
        launch.federated(context)
    assert seen == [False]
    assert not (context.run.path / ENDED).exists()


@pytest.mark.parametrize(
    ("code", "left"),
    [(ExitCode.BAD_INPUT, True), (ExitCode.REFUSED, True), (ExitCode.TRANSIENT, False)],
)
def test_a_server_that_will_not_be_tried_again_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: ExitCode, left: bool
) -> None:
    class TheirError(FedriskError):
        exit_code = code

    def train(*_: object) -> None:
        raise TheirError("why")

    context = stored(tmp_path)
    monkeypatch.setattr(launch, "_own_federation", train)
    with pytest.raises(TheirError):
        launch.federated(context)
    assert is_ended(context.settings, context.run.run) is left


def test_flowers_own_superlink_is_not_opened_to_other_machines(tmp_path: Path) -> None:
    context = stored(tmp_path, executor="stock")
    with pytest.raises(StudyError, match="register keys and start runs"):
        launch.federated(context)
    # No process was started, and the hospitals do not wait.
    assert not (context.run.folder("federated") / "superlink.log").exists()
    assert is_ended(context.settings, context.run.run)
