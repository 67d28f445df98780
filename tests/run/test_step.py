"""The contract that every step keeps."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from tasks.errors import DataError, SettingsError
from tasks.run import step as steps
from tasks.run.folder import RunFolder
from tasks.run.plan import Request, make_plan
from tasks.run.step import Context, Result, run_step
from tasks.run.steps import Step
from tasks.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, checkout: Path) -> Settings:
    found = Settings.from_environment(
        {"FEDRISK_HOME": str(tmp_path), "FEDRISK_STUDIES": str(checkout / "dags" / "studies")}
    )
    make_plan(Request(study="stroke"), "r1", found)
    return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """A step of this test's own, which notes its calls."""
    seen: list[str | None] = []
    module = types.ModuleType("step_of_the_test")

    def work(context: Context) -> Result:
        seen.append(context.hospital)
        return Result(figures={"rows": 3})

    def broken(context: Context) -> Result:
        raise DataError("the table is empty.")

    def step(name: str, **what: bool) -> Step:
        function = f"step_of_the_test:{name}"
        return Step(function=function, title="", after=(), image="spark", role="data", **what)

    module.work, module.broken = work, broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "step_of_the_test", module)
    monkeypatch.setitem(steps.STEPS, "work", step("work", each_hospital=True))
    monkeypatch.setitem(steps.STEPS, "broken", step("broken"))
    return seen


def test_a_step_that_is_done_is_not_done_again(settings: Settings, calls: list[str]) -> None:
    first = run_step("work", "r1", settings, "hospital-1")
    assert run_step("work", "r1", settings, "hospital-1") == first
    assert calls == ["hospital-1"]


def test_a_step_that_fails_leaves_no_manifest(settings: Settings, calls: list[str]) -> None:
    with pytest.raises(DataError):
        run_step("broken", "r1", settings)
    assert RunFolder(settings.runs, "r1").find("broken") is None


def test_the_hospital_is_needed_or_refused(settings: Settings, calls: list[str]) -> None:
    with pytest.raises(SettingsError, match="needs --hospital"):
        run_step("work", "r1", settings)
    with pytest.raises(SettingsError, match="takes no --hospital"):
        run_step("broken", "r1", settings, "hospital-1")
    with pytest.raises(SettingsError, match="does not take part"):
        run_step("work", "r1", settings, "elsewhere")


def test_an_unknown_step_is_named_with_the_known(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"no step named 'colect'; .*collect"):
        run_step("colect", "r1", settings)
