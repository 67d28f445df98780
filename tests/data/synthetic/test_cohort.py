"""The synthetic cohort: exact, consistent, with stated mechanisms, and useful on real rows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.cli import synth
from tasks.data.synthetic import outcome as outcome
from tasks.data.synthetic.cohort import Cohort, cohort
from tasks.data.synthetic.population import SMOKING, draw
from tasks.data.table_check import check_tables
from tasks.errors import SettingsError, StudyError
from tasks.run.plan import Request
from tasks.settings import Settings
from tasks.study import Share, Study, read_study

HOSPITALS = ("hospital-1", "hospital-2", "hospital-3")


@pytest.fixture(scope="module")
def study(checkout: Path) -> Study:
    return read_study(checkout / "dags" / "studies" / "stroke.yaml")


@pytest.fixture(scope="module")
def default(study: Study) -> Cohort:
    return cohort(study, seed=study.seed)


@pytest.fixture(scope="module")
def large(study: Study) -> Cohort:
    return cohort(study, patients=200_000, seed=5)


@pytest.fixture(scope="module")
def rows(large: Cohort) -> pd.DataFrame:
    table = pd.concat(large.tables.values(), ignore_index=True)
    table["years"] = table.age.astype(float)
    table["positive"] = table.stroke == "1"
    table["lacks_bmi"] = table.bmi == "N/A"
    return table


@pytest.fixture(scope="module")
def people() -> Any:
    """A census population, of no hospital's preference, with all that no column tells."""
    rng = np.random.default_rng(0)
    return draw(Share(rows=300_000, positive_rate=0.02), 300_000, rng)


def test_sizes_and_counts_are_exact(default: Cohort) -> None:
    assert tuple(default.tables) == HOSPITALS
    assert [len(table) for table in default.tables.values()] == [1700, 1400, 2010]
    strokes = {name: int((table.stroke == "1").sum()) for name, table in default.tables.items()}
    assert strokes == default.positives == dict(zip(HOSPITALS, (204, 28, 100), strict=True))


@pytest.mark.parametrize(("patients", "hospitals"), [(100, 3), (5111, 3), (9_999, 7), (20_000, 1)])
def test_any_size_is_exact(study: Study, patients: int, hospitals: int) -> None:
    made = cohort(study, patients=patients, hospitals=hospitals, seed=3)
    assert list(made.tables) == [f"hospital-{k + 1}" for k in range(hospitals)]
    assert sum(len(table) for table in made.tables.values()) == patients
    profiles = [site.share for site in study.hospitals.values()]
    for k, table in enumerate(made.tables.values()):
        profile = profiles[k % 3]
        assert profile is not None
        assert (table.stroke == "1").sum() == round(len(table) * profile.positive_rate)


def test_half_a_stroke_rounds_to_even(study: Study, default: Cohort) -> None:
    # 2,010 patients at 5 % are 100.5 strokes; 4 hospitals give the first profile twice.
    assert default.positives["hospital-3"] == 100
    assert list(cohort(study, hospitals=4, seed=1).positives.values()) == [204, 28, 100, 204]


def test_tables_hold_the_studys_columns_as_strings(study: Study, default: Cohort) -> None:
    for table in default.tables.values():
        assert list(table.columns) == study.raw_columns
        assert all(isinstance(value, str) for value in table.to_numpy().ravel())
        for name, column in study.columns.items():
            known = table[name][~table[name].isin(column.missing)]
            if column.type == "category":
                assert set(known) <= set(column.categories)
            elif column.type == "flag":
                assert set(known) <= {"0", "1"}
            else:
                assert column.range is not None
                assert known.astype(float).between(*column.range).all()
            assert (len(table) - len(known)) / len(table) <= column.max_missing
        assert table.avg_glucose_level.str.fullmatch(r"\d+\.\d\d").all()
        assert table.bmi.str.fullmatch(r"\d+\.\d|N/A").all()
        assert table.age.str.fullmatch(r"\d+|[01]\.\d\d").all()


def test_the_same_seed_makes_the_same_cohort_and_another_a_different_one(
    study: Study, default: Cohort
) -> None:
    again, other = cohort(study), cohort(study, seed=study.seed + 1)
    for name, table in default.tables.items():
        pd.testing.assert_frame_equal(table, again.tables[name])
        assert not table.equals(other.tables[name])
    assert again.oracle_auroc == default.oracle_auroc != other.oracle_auroc


def test_a_hospitals_rows_depend_on_no_other_hospital(study: Study) -> None:
    three, four = cohort(study, hospitals=3, seed=9), cohort(study, hospitals=4, seed=9)
    without_id = three.tables["hospital-2"].drop(columns="id")
    pd.testing.assert_frame_equal(without_id, four.tables["hospital-2"].drop(columns="id"))


def test_ids_are_unique_over_the_cohort_and_tell_no_position(default: Cohort) -> None:
    ids = pd.concat([table.id for table in default.tables.values()]).astype(int).to_numpy()
    assert len(set(ids)) == len(ids)
    assert abs(np.corrcoef(ids, np.arange(len(ids)))[0, 1]) < 0.05


def test_the_stated_oracle_is_the_true_risks_auroc(default: Cohort) -> None:
    from sklearn.metrics import roc_auc_score

    labels = {name: table.stroke == "1" for name, table in default.tables.items()}
    for name, risk in default.risk.items():
        assert roc_auc_score(labels[name], risk) == pytest.approx(default.oracle_within[name])
        assert risk.sum() == pytest.approx(default.positives[name], abs=1e-4)
    pooled = roc_auc_score(pd.concat(labels.values()), np.concatenate(list(default.risk.values())))
    assert pooled == pytest.approx(default.oracle_auroc)


def test_the_oracle_is_realistic(large: Cohort) -> None:
    assert 0.83 <= large.oracle_auroc <= 0.87
    assert all(0.74 <= value <= 0.89 for value in large.oracle_within.values())


def test_strokes_follow_the_stated_risk(large: Cohort) -> None:
    """In each tenth of the risk, observed and stated strokes agree within their noise."""
    risk = np.concatenate(list(large.risk.values()))
    positive = np.concatenate([table.stroke == "1" for table in large.tables.values()])
    for tenth in np.array_split(np.argsort(risk), 10):
        expected = risk[tenth].sum()
        noise = np.sqrt((risk[tenth] * (1 - risk[tenth])).sum())
        assert abs(positive[tenth].sum() - expected) < 4 * noise + 1


def test_hospitals_differ_as_the_study_says(large: Cohort) -> None:
    elderly, young, rural = large.tables.values()
    ages = [table.age.astype(float) for table in (elderly, young, rural)]
    assert ages[0].mean() > 50
    assert 30 < ages[1].mean() < 40
    assert ages[2].std() > ages[1].std()
    assert (ages[2] < 14).mean() > 0.15 > (ages[0] < 14).mean()
    urban = [(table.Residence_type == "Urban").mean() for table in (elderly, young, rural)]
    assert min(urban[:2]) > 0.65 > 0.35 > urban[2]


def test_children_are_children(rows: pd.DataFrame) -> None:
    children = rows[rows.years < 13]
    assert (children.ever_married == "No").all()
    assert set(children.work_type) <= {"children", "Never_worked"}
    assert (children.smoking_status == "Unknown").mean() > 0.8
    assert not children.smoking_status.eq("smokes").any()
    assert (children.hypertension == "0").all()
    assert (rows[rows.work_type == "children"].years < 18).all()
    assert (rows[rows.work_type == "children"].ever_married == "No").all()
    assert children.positive.mean() < 0.002
    months = rows[rows.years < 2].age
    assert months.str.contains(".", regex=False).mean() > 0.9


def test_factors_hang_together(rows: pd.DataFrame) -> None:
    adults = rows[rows.years.between(50, 80)]
    glucose = adults.avg_glucose_level.astype(float)
    assert glucose[adults.hypertension == "1"].mean() > glucose[adults.hypertension == "0"].mean()
    heart = adults.heart_disease == "1"
    assert heart[adults.smoking_status == "smokes"].mean() > heart.mean()
    assert heart[adults.gender == "Male"].mean() > heart[adults.gender == "Female"].mean()
    heavy = ~adults.lacks_bmi & (adults.bmi.where(~adults.lacks_bmi).astype(float) > 32)
    assert glucose[heavy].mean() > glucose[~heavy].mean()


def test_bmi_is_missing_at_random_given_age_and_sex_and_smoking_record(rows: pd.DataFrame) -> None:
    middle = rows[rows.years.between(36, 60)]
    lacks = middle.lacks_bmi
    assert lacks[middle.gender == "Male"].mean() > 1.1 * lacks[middle.gender == "Female"].mean()
    unknown = middle.smoking_status == "Unknown"
    assert lacks[unknown].mean() > 1.2 * lacks[~unknown].mean()


def test_bmi_is_missing_not_at_random(people: Any) -> None:
    """It depends on its own value and on being an emergency, which no column tells."""
    missing = outcome.bmi_missing(people, np.random.default_rng(1))
    assert missing[people.bmi > 400].mean() > 1.3 * missing[people.bmi < 300].mean()
    assert missing[people.emergency].mean() > 2.5 * missing[~people.emergency].mean()


def test_a_missing_bmi_tells_of_the_outcome(rows: pd.DataFrame) -> None:
    old = rows[rows.years > 65]
    assert old.positive[old.lacks_bmi].mean() > 1.1 * old.positive[~old.lacks_bmi].mean()
    assert 0.03 < rows.lacks_bmi.mean() < 0.12


def test_smokers_are_asked_more_often_than_others(people: Any) -> None:
    adults = people.age >= 20
    asked = [people.smoking_known[adults & (people.smoking == k)].mean() for k in range(3)]
    assert asked[SMOKING.index("smokes")] > asked[SMOKING.index("never smoked")] + 0.05


@pytest.mark.parametrize(
    ("factor", "ages", "published"),
    [
        ("hypertension", (18, 40), 0.071 * 0.54),
        ("hypertension", (40, 60), 0.317 * 0.54),
        ("hypertension", (60, 96), 0.663 * 0.54),
        ("diabetes", (20, 40), 0.023),
        ("diabetes", (40, 60), 0.098),
        ("diabetes", (60, 96), 0.21),
        ("heart_disease", (45, 65), 0.071),
        ("heart_disease", (65, 75), 0.162),
    ],
)
def test_prevalence_is_the_published_one(
    people: Any, factor: str, ages: tuple[int, int], published: float
) -> None:
    band = (people.age >= ages[0]) & (people.age < ages[1])
    assert getattr(people, factor)[band].mean() == pytest.approx(published, rel=0.25)


def test_strokes_by_age_are_the_published_prevalence(people: Any) -> None:
    """Adults of the census at the overall rate of BRFSS 2010 show its rates by age."""
    adults = people.age >= 18
    age = people.age[adults]
    risk = outcome.true_risk(outcome.risk_score(people)[adults], int(0.027 * adults.sum()))
    bands = {(18, 45): 0.007, (45, 65): 0.029, (65, 96): 0.083}
    for (low, high), published in bands.items():
        found = risk[(age >= low) & (age < high)].mean()
        assert found == pytest.approx(published, abs=0.003)


def test_the_published_score_is_the_generators_in_its_main_effects(study: Study) -> None:
    """Where a relative risk depends on age, the score has it at 70 or over all ages."""
    score = study.evaluation.published
    assert score is not None
    at_70 = dict(outcome.HYPERTENSION_RISK)[70]
    expected = {
        "age": np.log(outcome.DECADE_RISK) / 10,
        "hypertension": np.log(at_70),
        "heart_disease": np.log(outcome.PRIOR_HEART_DISEASE),
        "avg_glucose_level": np.log(outcome.DIABETES_RISK) / outcome.DIABETES_GAP,
        "smoking_status__smokes": np.log(1.5),
        "smoking_status__formerly_smoked": np.log(1.17),
    }
    assert score.weights == pytest.approx(expected, rel=0.005)


def test_the_published_score_gives_the_published_prevalence(people: Any, study: Study) -> None:
    score = study.evaluation.published
    assert score is not None
    weights = score.weights
    logit = (
        score.intercept
        + weights["age"] * people.age
        + weights["hypertension"] * people.hypertension
        + weights["heart_disease"] * people.heart_disease
        + weights["avg_glucose_level"] * people.glucose / 100
        + weights["smoking_status__smokes"] * (people.smoking_known & (people.smoking == 2))
        + weights["smoking_status__formerly_smoked"]
        * (people.smoking_known & (people.smoking == 0))
    )
    assert (1 / (1 + np.exp(-logit[people.age >= 18]))).mean() == pytest.approx(0.026, abs=0.001)


def test_a_million_patients_have_ids_of_their_own(study: Study) -> None:
    made = cohort(study, patients=1_000_000, hospitals=20, seed=2)
    assert sum(len(table) for table in made.tables.values()) == 1_000_000
    ids = pd.concat([table.id for table in made.tables.values()])
    assert ids.is_unique


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"patients": 2}, "--patients 2: too few for 3 hospitals"),
        ({"patients": 0}, "--patients 0"),
        ({"patients": -5}, "--patients -5"),
        ({"patients": 5}, "both outcomes are needed"),
        ({"hospitals": 0}, "--hospitals 0: ask for 1 or more"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**31}, "--seed 2147483648"),
    ],
)
def test_impossible_sizes_are_refused(study: Study, asked: dict[str, int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        cohort(study, **{"seed": 1, **asked})


def test_a_study_that_the_generator_cannot_fill_is_refused(study: Study, checkout: Path) -> None:
    with pytest.raises(StudyError, match=r"study heart has no synthetic cohort"):
        cohort(read_study(checkout / "dags" / "studies" / "heart.yaml"), seed=1)
    file = checkout / "dags" / "studies" / "stroke.yaml"
    changed = {
        "columns.pulse={type: flag, modality: clinical}": "has no column pulse",
        "columns.gender.categories=[Female, Male]": r"columns\.gender\.categories must hold",
        "columns.bmi.missing=[NA]": r"columns\.bmi\.missing must hold N/A",
        "id=null": "needs id",
    }
    for override, message in changed.items():
        with pytest.raises(StudyError, match=message):
            cohort(read_study(file, [override]), seed=1)


# Trained on synthetic rows, tested on real ones.


def encode(study: Study, table: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
    """The study's features of a raw table, null where missing."""
    found: dict[str, Any] = {}
    for feature in study.features:
        values = table[feature.column]
        missing = values.isin(["", *study.columns[feature.column].missing])
        if feature.kind == "missing":
            found[feature.name] = missing.astype(float)
        elif feature.kind == "category":
            found[feature.name] = (values == feature.category).astype(float)
        else:
            found[feature.name] = values.mask(missing).astype(float)
    return pd.DataFrame(found), (table.stroke == "1").to_numpy()


def train(features: pd.DataFrame, labels: Any) -> Any:
    """A regularised logistic regression; means stand in for missing values, beside their flags."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = features.mean(), features.std().replace(0, 1)
    model = LogisticRegression(C=1, max_iter=1000)
    model.fit(((features - mean) / spread).fillna(0), labels)
    return lambda rows: model.decision_function(((rows - mean) / spread).fillna(0))


@pytest.fixture(scope="module")
def real(study: Study, stroke_csv: Path) -> tuple[pd.DataFrame, Any]:
    table = pd.read_csv(stroke_csv, dtype=str, keep_default_na=False)
    return encode(study, table)


def held_out(real: tuple[pd.DataFrame, Any], models: dict[str, Any]) -> dict[str, float]:
    """Mean AUROC on held-out real rows, 3 times 5 folds; ``real`` is trained on the other rows."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import RepeatedStratifiedKFold

    features, labels = real
    found: dict[str, list[float]] = {name: [] for name in ("real", *models)}
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=3, random_state=0)
    for fit_on, test_on in folds.split(features, labels):
        own = train(features.iloc[fit_on], labels[fit_on])
        for name, model in {"real": own, **models}.items():
            scores = model(features.iloc[test_on])
            found[name].append(float(roc_auc_score(labels[test_on], scores)))
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.mark.shared
def test_a_model_of_synthetic_rows_does_well_on_real_ones(
    study: Study, real: tuple[pd.DataFrame, Any], rows: pd.DataFrame
) -> None:
    models = {"large": train(*encode(study, rows))}
    for seed in range(1, 6):
        tables = cohort(study, seed=seed).tables.values()
        models[f"seed {seed}"] = train(*encode(study, pd.concat(tables, ignore_index=True)))
    auroc = held_out(real, models)
    assert auroc["real"] >= 0.84
    of_size = [auroc[f"seed {seed}"] for seed in range(1, 6)]
    assert np.mean(of_size) >= 0.975 * auroc["real"], auroc
    assert min(of_size) >= 0.965 * auroc["real"], auroc
    # What the generator knows, without the noise of 332 strokes.
    assert auroc["large"] >= 0.98 * auroc["real"], auroc


@pytest.mark.shared
def test_the_published_score_does_well_on_real_rows(
    study: Study, real: tuple[pd.DataFrame, Any]
) -> None:
    from sklearn.metrics import roc_auc_score

    features, labels = real
    assert study.evaluation.published is not None
    weights = pd.Series(study.evaluation.published.weights)
    score = features[list(weights.index)] @ weights
    assert roc_auc_score(labels, score) >= 0.84
    assert roc_auc_score(labels, score) > roc_auc_score(labels, features.age)


# The command.


def command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    synth.add_parser(parser.add_subparsers())
    args = parser.parse_args(["synth", *arguments])
    settings = Settings(studies=Path(__file__).parents[3] / "dags" / "studies")
    return int(synth.run(args, settings))


def test_the_command_writes_one_csv_a_hospital_and_a_summary(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "cohort"
    asked = ["--out", str(out), "--patients", "900", "--hospitals", "2", "--seed", "4"]
    assert command(*asked) == 0
    made = cohort(study, patients=900, hospitals=2, seed=4)
    assert {path.name for path in out.iterdir()} == {
        "cohort.json",
        "hospital-1.csv",
        "hospital-2.csv",
        "study.yaml",
    }
    summary = json.loads((out / "cohort.json").read_text())
    assert summary["patients"] == 900
    assert summary["oracle_auroc"] == made.oracle_auroc
    for name, table in made.tables.items():
        written = pd.read_csv(out / f"{name}.csv", dtype=str, keep_default_na=False)
        pd.testing.assert_frame_equal(written, table)
        assert summary["hospitals"][name]["patients"] == len(table)
        assert summary["hospitals"][name]["positives"] == made.positives[name]
    assert "hospital-2" in capsys.readouterr().out


def test_the_command_writes_the_study_of_its_tables(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    assert command("--out", str(out), "--patients", "900", "--hospitals", "5", "--seed", "4") == 0
    own = read_study(out / "study.yaml")
    # Beside the shipped study it has tables and models of its own.
    assert own.name == "stroke-5"
    assert own.seed == 4
    assert own.schedule is None
    assert own.hospitals["hospital-1"].title == study.hospitals["hospital-1"].title
    assert [each.path for each in own.hospitals.values()] == [f"{n}.csv" for n in own.hospitals]
    assert len(own.hospitals) == 5
    assert own.columns == study.columns
    found = list(check_tables(Request(study=str(out / "study.yaml")), Settings(home=tmp_path)))
    assert [each.error for each in found] == [""] * 5
    summary = json.loads((out / "cohort.json").read_text())["hospitals"]
    assert {e.hospital: e.kept for e in found} == {n: h["patients"] for n, h in summary.items()}


def test_one_hospital_has_a_study_too_and_its_name_may_be_chosen(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    asked = ["--out", str(out), "--patients", "900", "--hospitals", "1", "--name", "alone"]
    assert command(*asked) == 0
    own = read_study(out / "study.yaml")
    assert (own.name, list(own.hospitals)) == ("alone", ["hospital-1"])


def test_the_command_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("1")
    with pytest.raises(SettingsError, match="not empty"):
        command("--out", str(tmp_path), "--patients", "300")
    with pytest.raises(SettingsError, match="is a file"):
        command("--out", str(tmp_path / "mine.csv"), "--patients", "300")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_a_command_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: pd.DataFrame, *args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(SettingsError, match="No space left"):
        command("--out", str(tmp_path / "cohort"), "--patients", "300")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    assert command("--out", str(tmp_path / "cohort"), "--patients", "300") == 0
    assert len(list((tmp_path / "cohort").iterdir())) == 5
