"""Settings come from the environment, and a misspelt one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import SettingsError
from tasks.settings import Settings


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"FEDRISK_HOMME: .*FEDRISK_HOME") as error:
        Settings.from_environment({"FEDRISK_HOMME": "x"})
    assert error.value.exit_code == 2


def test_a_value_of_the_wrong_type_names_the_variable() -> None:
    with pytest.raises(SettingsError, match="FEDRISK_STEP_DEADLINE"):
        Settings.from_environment({"FEDRISK_STEP_DEADLINE": "soon"})


def test_other_programs_variables_are_left_alone() -> None:
    assert Settings.from_environment({"PATH": "/bin"}).launcher == "process"


def test_each_hospital_has_its_own_lake(tmp_path: Path) -> None:
    settings = Settings.from_environment({"FEDRISK_HOME": str(tmp_path)})
    assert settings.table("a", "stroke", "gold") == f"{tmp_path}/lake/a/stroke/gold"
    assert settings.lake_root("a") != settings.lake_root("b")


def test_a_lake_may_be_one_bucket_per_hospital() -> None:
    settings = Settings.from_environment({"FEDRISK_LAKE": "s3a://fl-demo-data-{hospital}"})
    assert settings.lake_root("hospital-1") == "s3a://fl-demo-data-hospital-1"


def test_paths_are_absolute_so_that_a_step_may_run_elsewhere() -> None:
    settings = Settings.from_environment({"FEDRISK_HOME": "somewhere"})
    assert settings.home.is_absolute()
    assert settings.studies.is_absolute()
