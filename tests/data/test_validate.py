"""Silver is typed and constrained; shares of positives are compared with the version before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.data.drift import Outcome, bounds, remark
from tasks.errors import DataError
from tasks.run.plan import Request, make_plan
from tasks.run.step import run_step
from tasks.settings import Settings
from tests.data.conftest import House, patients, read, text_of


@pytest.mark.slow
def test_the_heart_study_keeps_every_patient_of_four_hospitals(
    tmp_path: Path, checkout: Path
) -> None:
    settings = Settings(home=tmp_path, studies=checkout / "dags" / "studies")
    plan = make_plan(Request(study="heart"), "h", settings)
    found = {}
    for hospital in plan.hospitals:
        run_step("collect", "h", settings, hospital)
        done = run_step("validate", "h", settings, hospital)
        found[hospital] = (done.figures["rows"], done.figures["positives"])
        missing = done.figures["missing"]
        assert (missing["chol"] == 1.0) == (hospital == "switzerland")
        rows = read(done.tables["silver"])
        assert len({row["patient"] for row in rows}) == len(rows)
    assert found == {
        "cleveland": (303, 139),
        "hungarian": (294, 106),
        "switzerland": (123, 115),
        "va": (200, 149),
    }


@pytest.mark.slow
def test_silver_refuses_what_the_study_forbids(house: House) -> None:
    silver = house.steps("r", "collect", "validate").tables["silver"]
    from tasks.lake.session import spark_session
    from tasks.lake.tables import overwrite

    spark = spark_session(house.settings)
    good = spark.read.format("delta").load(silver.uri)
    for column, value in [("age", "130D"), ("sex", "'Other'"), ("label", "2"), ("patient", "''")]:
        kind = dict(good.dtypes)[column]
        bad = good.selectExpr(
            *[f"CAST({value} AS {kind}) AS {c}" if c == column else c for c in good.columns]
        )
        with pytest.raises(DataError, match="constraint of the table") as caught:
            overwrite(bad, silver.uri, {}, keep_schema=True)
        assert "130" not in str(caught.value)
    assert len(read(silver)) == 80


@pytest.mark.slow
def test_codes_with_decimals_are_the_same_codes(house: House) -> None:
    rows = patients()
    for row in rows[:20]:
        row[3], row[6], row[5] = f"{row[3]}.0", f" {row[6]}.0", f"{row[5]}.0"
    expected = house.steps("plain", "collect", "validate").tables["silver"]
    house.north(text_of(rows))
    silver = house.steps("decimals", "collect", "validate").tables["silver"]

    def order(table: list[dict[str, object]]) -> list[dict[str, object]]:
        return sorted(table, key=lambda row: str(row["patient"]))

    assert order(read(silver)) == order(read(expected))


@pytest.mark.slow
def test_a_drift_of_the_outcome_is_noted_and_a_large_one_stops(house: House) -> None:
    def with_positives(count: int) -> str:
        rows = patients(400)
        for i, row in enumerate(rows):
            row[6] = "1" if i < count else "0"
        return text_of(rows)

    house.north(with_positives(80))
    first = house.steps("first", "collect", "validate")
    assert first.figures["target_rate_before"] is None
    house.north(with_positives(118))
    second = house.steps("second", "collect", "validate")
    assert second.figures["target_rate_before"] == pytest.approx(0.2)
    assert "share of positives moved" in second.notes[0]
    house.north(with_positives(320))
    with pytest.raises(DataError, match="stroke: drift"):
        house.steps("third", "collect", "validate")


def test_the_same_share_is_no_drift() -> None:
    before = Outcome("o", "r", 1000, 50)
    assert remark(before, Outcome("o", "s", 900, 47)) is None
    low, high = bounds(before, 900)
    assert low < 0.05 < high
    assert json.dumps(before.noted())
