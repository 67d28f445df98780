"""Silver is typed and constrained; shares of positives are compared with the version before."""

from __future__ import annotations

import json

import pytest

from tasks.data.drift import Outcome, bounds, remark
from tasks.errors import DataError
from tasks.run.manifest import Manifest
from tests.data.conftest import House, by_patient, patients, text_of


def test_codes_with_decimals_are_the_same_codes(house: House, sound: dict[str, Manifest]) -> None:
    rows = patients()
    for row in rows[:20]:
        row[3], row[6], row[5] = f"{row[3]}.0", f" {row[6]}.0", f"{row[5]}.0"
    house.north(text_of(rows))
    silver = house.steps("decimals", "collect", "validate").tables["silver"]
    assert by_patient(silver) == by_patient(sound["validate"].tables["silver"])


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
