"""The command line: rejected input, with its message and exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.cli import COMMANDS, main, parser


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDRISK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must end with exit code 2; and return its message."""
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    return errors


def test_every_command_is_in_the_help() -> None:
    assert all(name in parser().format_help() for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--study", "nope"], "no study named 'nope'"),
        (["run", "--study", "nowhere.yaml"], "nowhere.yaml: no such study file"),
        (["run", "--set", "federation.rouds=3"], "federation.rouds"),
        (["run", "--set", "federation.rounds"], "expected path.to.key=value"),
        (["run", "--strategy", "fedsgd"], "federation.strategy"),
        (["run", "--hospitals", "hospital-1,hospital-9"], "hospital-9"),
        (["run", "--hospitals", "hospital-1"], "min_hospitals"),
        (["run", "--source", "/nowhere/table.csv"], "/nowhere/table.csv"),
        (["run", "--seed", "-1"], "seed"),
        (["run", "--run", "../x"], "run id"),
        (["step", "collect", "--study", "stroke", "--run", "r"], "no plan"),
        (["step", "plan", "--study", "stroke", "--run", "r", "--hospital", "h"], "--hospitals"),
        (["report", "nope"], "fedrisk runs"),
        (["study", "show", "nope"], "no study named"),
    ],
)
def test_a_mistake_is_refused_with_exit_code_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments", [["run", "--rounds", "0"], ["run", "--hospitals", ","], ["nope"], []]
)
def test_a_malformed_argument_ends_with_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_a_misspelt_setting_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDRISK_LAEK", "x")
    assert "FEDRISK_LAEK" in refused(capsys, "runs")


def test_nothing_is_started_for_an_invalid_run(home: Path) -> None:
    assert main(["run", "--source", "/nowhere.csv"]) == 2
    assert not (home / "airflow").exists()


def test_study_check_names_file_line_and_key(
    tmp_path: Path, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (checkout / "dags" / "studies" / "heart.yaml").read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("  rounds: 12", "  rouds: 12"), encoding="utf-8")
    line = next(i for i, row in enumerate(file.read_text().splitlines(), 1) if "rouds" in row)
    message = refused(capsys, "study", "check", str(file))
    assert f"{file}:{line}: federation.rouds" in message


def test_study_check_accepts_the_shipped_studies(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("stroke", "heart"):
        assert main(["study", "check", str(checkout / "dags" / "studies" / f"{name}.yaml")]) == 0
    assert capsys.readouterr().out.count("sound") == 2


def test_the_schema_describes_every_key_of_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"target", "columns", "hospitals", "gates", "pooling"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_show_prints_a_study_with_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "show", "heart"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluation"]["confidence"] == 0.95


def test_step_plan_freezes_the_options(home: Path) -> None:
    arguments = ["--rounds", "2", "--hospitals", "va,cleveland,hungarian", "--no-promote"]
    assert main(["step", "plan", "--study", "heart", "--run", "r", *arguments]) == 0
    plan = json.loads((home / "runs" / "r" / "plan.json").read_text())
    assert plan["hospitals"] == ["cleveland", "hungarian", "va"]
    assert plan["study"]["federation"]["rounds"] == 2
    assert plan["promote"] is False


def test_a_step_with_another_study_than_the_runs_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["step", "plan", "--study", "heart", "--run", "r"]) == 0
    capsys.readouterr()
    message = refused(capsys, "step", "champion", "--study", "stroke", "--run", "r")
    assert "of study heart" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--study", "stroke"], "is of study heart, not of stroke"),
        (["--study", "heart", "--rounds", "3"], "other settings"),
        (["--study", "heart", "--hospitals", "cleveland,va,hungarian"], "other hospitals"),
    ],
)
def test_a_run_is_not_resumed_with_other_options(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["step", "plan", "--study", "heart", "--run", "r"]) == 0
    capsys.readouterr()
    assert expected in refused(capsys, "run", "--run", "r", *arguments)


def test_a_fault_of_the_program_ends_with_code_1_and_a_traceback(home: Path) -> None:
    run = home / "runs" / "r"
    run.mkdir(parents=True)
    (run / "plan.json").write_text("no JSON")
    done = subprocess.run(
        [sys.executable, "-m", "tasks.cli", "runs"],
        env=os.environ, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_runs_lists_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    assert "no runs" in capsys.readouterr().out
    main(["step", "plan", "--study", "heart", "--run", "first"])
    capsys.readouterr()
    assert main(["runs"]) == 0
    assert "not finished" in capsys.readouterr().out
