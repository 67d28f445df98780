"""Gold is the study's features; a patient's part depends on the id and the key alone."""

from __future__ import annotations

import hashlib
import random

import pytest

from tasks.data.profile import BINS, Profile, merge_bins, merge_categories
from tasks.run.manifest import Manifest
from tasks.study import read_study
from tests.data.conftest import HEADER, House, by_patient, patients, read, text_of


def part_of(key: str, patient: str) -> str:
    digest = hashlib.sha256(f"{key}:{patient}".encode()).hexdigest()
    place = int(digest[:13], 16) / 16**13
    return "train" if place < 0.6 else "validation" if place < 0.8 else "test"


def test_gold_holds_the_studys_features_and_frozen_parts(
    house: House, sound: dict[str, Manifest]
) -> None:
    study = read_study(house.folder / "small.yaml", [])
    rows = {row["patient"]: row for row in read(sound["features"].tables["gold"])}
    first = next(iter(rows.values()))
    assert list(first) == ["patient", "part", "label", *(f.name for f in study.features)]
    for raw in patients():
        named = dict(zip(HEADER, raw, strict=True))
        row = rows[named["id"]]
        assert row["part"] == part_of("small", named["id"])
        assert row["label"] == int(named["stroke"])
        assert row["age"] == float(named["age"])
        assert row["sex__male"] == float(named["sex"] == "Male")
        assert row["smoker"] == float(named["smoker"])
        assert (row["bmi"] is None) == (named["bmi"] == "N/A")
        assert row["bmi__missing"] == float(named["bmi"] == "N/A")


def test_a_patient_stays_in_his_part_whatever_else_is_in_the_table(
    house: House, sound: dict[str, Manifest]
) -> None:
    before = read(sound["features"].tables["gold"])
    rows = patients() + patients(50, seed=11)
    random.Random(1).shuffle(rows)
    house.north(text_of(rows))
    after = read(house.steps("b", "collect", "validate", "features").tables["gold"])
    parts = {row["patient"]: row["part"] for row in after}
    assert len(parts) == 130
    assert all(parts[row["patient"]] == row["part"] for row in before)


def test_without_an_id_the_order_of_rows_does_not_matter_and_copies_stay_together(
    house: House,
) -> None:
    house.study(change=("id: id\n", ""))
    rows = patients()
    rows += rows[:30] + rows[:5]
    house.north(text_of(rows))
    gold = by_patient(house.steps("copied", "collect", "validate", "features").tables["gold"])
    random.Random(1).shuffle(rows)
    house.north(text_of(rows))
    again = house.steps("shuffled", "collect", "validate", "features").tables["gold"]
    assert gold == by_patient(again)
    assert len({row["patient"] for row in gold}) == 115
    originals = {str(row["patient"]): row for row in gold if "#" not in str(row["patient"])}
    assert len(originals) == 80
    assert all(row["part"] == part_of("small", who) for who, row in originals.items())
    for row in gold:
        first, _, copy = str(row["patient"]).partition("#")
        assert {**row, "patient": first} == originals[first]
        assert copy in ("", "2", "3")


def test_the_profile_counts_training_rows_alone_and_no_small_group(
    sound: dict[str, Manifest],
) -> None:
    done = sound["features"]
    profile = Profile.model_validate(done.figures["profile"])
    train = [row for row in read(done.tables["gold"]) if row["part"] == "train"]
    assert (profile.rows, profile.positives) == (len(train), sum(r["label"] for r in train))
    for name, column in profile.columns.items():
        groups = [*column.groups, *([column.missing] if column.missing else [])]
        assert all(group.rows >= profile.min_count for group in groups)
        if name != "bmi":
            assert sum(group.rows for group in groups) == profile.rows
            assert sum(group.positives for group in groups) == profile.positives


def test_neighbouring_bins_are_merged_until_no_group_is_small() -> None:
    groups = merge_bins({0: (3, 1), 1: (4, 0), 10: (9, 2), 31: (2, 1)}, 0.0, 32.0, 5)
    assert [(g.low, g.high, g.rows, g.positives) for g in groups] == [
        (0.0, 2.0, 7, 1),
        (2.0, float(BINS), 11, 3),
    ]
    assert groups[0].centre == pytest.approx((3 * 0.5 + 4 * 1.5) / 7)
    assert merge_bins({4: (4, 1)}, 0.0, 32.0, 5) == []


def test_small_categories_are_merged_into_other_which_is_never_small() -> None:
    groups = merge_categories({"a": (90, 5), "b": (7, 1), "c": (2, 1)}, 5)
    assert [(g.name, g.rows, g.positives) for g in groups] == [("a", 90, 5), ("other", 9, 2)]
    assert groups[1].categories == ["b", "c"]
    assert merge_categories({"a": (4, 1)}, 5) == []
