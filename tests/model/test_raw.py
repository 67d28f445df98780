from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.data import values
from tasks.errors import DataError
from tasks.model.raw import NUMBER, raw_to_features
from tasks.study import Study, read_study

PATIENT = {
    "age": "67",
    "gender": "Male",
    "ever_married": "Yes",
    "Residence_type": "Urban",
    "hypertension": "0",
    "heart_disease": "1",
    "work_type": "Private",
    "smoking_status": "Unknown",
    "avg_glucose_level": "228.69",
    "bmi": "36.6",
}


def row(study: Study, **changes: object) -> dict[str, float]:
    frame = pd.DataFrame([PATIENT | changes])
    return dict(
        zip([f.name for f in study.features], raw_to_features(frame, study)[0], strict=True)
    )


def test_a_patients_features(study: Study) -> None:
    found = row(study)
    assert found["age"] == 67
    assert (found["gender__male"], found["gender__female"]) == (1, 0)
    assert (found["hypertension"], found["heart_disease"]) == (0, 1)
    assert found["smoking_status__unknown"] == 1
    assert (found["bmi"], found["bmi__missing"]) == (36.6, 0)
    assert sum(found[f.name] for f in study.features if f.column == "work_type") == 1


@pytest.mark.parametrize("missing", ["N/A", "", None, np.nan, " "])
def test_a_missing_number_is_nan_and_flagged(study: Study, missing: object) -> None:
    found = row(study, bmi=missing)
    assert np.isnan(found["bmi"])
    assert found["bmi__missing"] == 1


@pytest.mark.parametrize("value", ["1", "1.0", " 1 ", 1, 1.0, True, "Yes", "TRUE"])
def test_a_flag_in_any_spelling(study: Study, value: object) -> None:
    assert row(study, hypertension=value)["hypertension"] == 1


def test_numbers_and_text_give_the_same(study: Study) -> None:
    assert row(study, age=67, avg_glucose_level=228.69) == row(study)
    assert row(study, age=67.0) == row(study)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gender": "man"}, "column gender is none of Female, Male, Other in 1 rows"),
        ({"age": "130"}, "column age is outside 0..120 in 1 rows"),
        ({"age": "old"}, "column age is not a number in 1 rows"),
        ({"age": "nan"}, "column age is not a number in 1 rows"),
        ({"age": ""}, "column age is missing in 1 rows"),
        ({"hypertension": "2"}, "column hypertension is none of no, yes, 0, 1 in 1 rows"),
    ],
)
def test_a_bad_value_is_named_by_column_and_count_only(
    study: Study, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        row(study, **changes)


def test_an_absent_column_is_an_error_unless_it_may_be_missing(study: Study) -> None:
    frame = pd.DataFrame([PATIENT])
    x = raw_to_features(frame.drop(columns="bmi"), study)
    assert np.isnan(x).sum() == 1
    with pytest.raises(DataError, match="column age is absent"):
        raw_to_features(frame.drop(columns="age"), study)


def test_codes_with_decimals_are_the_studys_categories(checkout: Path) -> None:
    heart = read_study(checkout / "dags" / "studies" / "heart.yaml", [])
    tables = [
        pd.read_csv(
            checkout / "dags" / "studies" / str(hospital.path),
            header=None,
            names=heart.source.fields,
            dtype=str,
            keep_default_na=False,
        )
        for hospital in heart.hospitals.values()
    ]
    # Cleveland writes 1.0, the others 1.
    x = raw_to_features(pd.concat(tables), heart)
    pain = [i for i, f in enumerate(heart.features) if f.kind == "category" and f.column == "cp"]
    assert len(x) == 920
    assert (x[:, pain].sum(axis=1) == 1).all()


def test_a_code_keeps_the_zeros_that_a_reader_dropped(checkout: Path) -> None:
    study = read_study(
        checkout / "dags" / "studies" / "stroke.yaml",
        [
            "columns.ward={type: category, modality: history, categories: ['01', '02', '002', '3'],"
            " missing: ['09']}",
            "columns.age.missing=['042']",
            "columns.hypertension.codes={'01': 'no', '02': 'yes'}",
        ],
    )
    ward = [row(study, ward=1)["ward__01"], row(study, ward=3.0)["ward__3"]]
    assert ward == [1, 1]
    # 2 may be either, a text says what it says, a marker stands for nothing, an age is a number.
    for wrong in (2, "1", 9, True):
        with pytest.raises(DataError, match="column ward"):
            row(study, ward=wrong)
    assert row(study, age=42, ward=1)["age"] == 42
    # Of that flag's codes 1 is no, and of all flags yes.
    assert row(study, ward=1, hypertension="01")["hypertension"] == 0
    assert row(study, ward=1, hypertension=2)["hypertension"] == 1
    with pytest.raises(DataError, match="column hypertension"):
        row(study, ward=1, hypertension=1)


def test_a_number_is_what_the_spark_step_takes_for_one() -> None:
    assert NUMBER.pattern == values.NUMBER.removeprefix("^").removesuffix("$")
