"""Each invalid combination of a study's settings is refused with its reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.errors import StudyError
from tasks.study import Study, read_study
from tasks.study.base import canonical
from tasks.study.learning import ALLOWED_OPTIONS

DEAL = """\
name: deal
title: Deal
pooling: allowed
id: id
target: {column: outcome, positive: [1], negative: [0]}
columns:
  age: {type: number, modality: demographics, range: [0, 120]}
  smoker: {type: flag, modality: lifestyle, missing: ["?"], max_missing: 0.1}
  ward: {type: category, modality: history, categories: [East Wing, West Wing, 3.0]}
  bmi: {type: number, modality: clinical, range: [8, 120], optional_at: [south]}
source: {kind: deal}
hospitals:
  north: {share: {rows: 100, positive_rate: 0.1}}
  south: {share: {rows: 200, positive_rate: 0.2}}
  west: {share: {rows: 300, positive_rate: 0.3}}
split: {key: deal}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "deal.yaml"
    path.write_text(DEAL, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def study(file: Path) -> Study:
    return read_study(file)


# A column.


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("{type: number, modality: clinical}", "a column of type number needs range"),
        ("{type: integer, modality: clinical}", "a column of type integer needs range"),
        ("{type: number, modality: clinical, range: [5, 5]}", "with lowest < highest"),
        ("{type: number, modality: clinical, range: [5]}", "range.1: this key is required"),
        ("{type: number, modality: clinical, range: [0, .inf]}", "finite number"),
        ("{type: number, modality: clinical, range: [.nan, 1]}", "finite number"),
        ("{type: flag, modality: clinical, range: [0, 1]}", "type flag has no range"),
        ("{type: flag, modality: clinical, categories: [a, b]}", "type flag has no categories"),
        ("{type: category, modality: history}", "needs categories: a list of 2 or more"),
        ("{type: category, modality: history, categories: [a]}", "a list of 2 or more"),
        ("{type: category, modality: history, categories: [a, a]}", "contains a value twice"),
        ("{type: category, modality: history, categories: [1, 1.0]}", "contains a value twice"),
        ("{type: category, modality: history, categories: [a, true]}", "put the value in quotes"),
        ("{type: category, modality: history, categories: [a, null]}", "put the value in quotes"),
        (
            "{type: category, modality: history, categories: [a, b], missing: [b]}",
            "in both categories and missing",
        ),
        (
            "{type: category, modality: history, categories: [a, '9'], missing: [9.0]}",
            "in both categories and missing",
        ),
        (
            "{type: category, modality: history, categories: [a, b], labels: {c: C}}",
            "labels names ['c'], which categories does not",
        ),
        ("{type: flag, modality: clinical, max_missing: 1.1}", "less than or equal to 1"),
        ("{type: flag, modality: clinical, max_missing: .nan}", "finite number"),
        ("{type: flag, modality: social}", "'demographics', 'history', 'lifestyle' or 'clinical'"),
        ("{type: flag, modality: clinical, optional_at: [east]}", "unknown hospitals ['east']"),
    ],
)
def test_an_invalid_column_is_refused(file: Path, column: str, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        read_study(file, [f"columns.extra={column}"])
    assert message in str(caught.value)
    assert "columns.extra" in str(caught.value)


def test_yes_and_no_are_text_in_a_list_of_categories(file: Path) -> None:
    study = read_study(file, ["columns.ward.categories=[Yes, No]"])
    assert study.columns["ward"].categories == ["Yes", "No"]


@pytest.mark.parametrize("name", ["_row", "patient", "label", "part", "reason", "Label"])
def test_names_of_fedrisks_own_columns_are_reserved(file: Path, name: str) -> None:
    with pytest.raises(StudyError, match=r"columns: fedrisk's own tables use"):
        read_study(file, [f"columns.{name}={{type: flag, modality: clinical}}"])


# The study as a whole.


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["target.positive=[1, 0]"], "in both positive and negative"),
        (["target.negative=[1.0]"], "in both positive and negative"),
        (["target.positive=[]"], "at least 1 item"),
        (["target.positive=[true]"], "put the value in quotes"),
        (["target.column=bmi"], "target.column bmi is also in columns: a leak"),
        (["id=bmi"], "id bmi is also in columns: an id is not a feature"),
        (["id=outcome"], "name ['outcome'] twice"),
        (["columns.AGE={type: flag, modality: clinical}"], "name ['age'] twice"),
        (["columns.Outcome={type: flag, modality: clinical}"], "name ['outcome'] twice"),
        (
            ["columns.bmi__missing={type: flag, modality: clinical}"],
            "columns: two columns have the same feature ['bmi__missing']",
        ),
        (["evaluation.reference=pulse"], "evaluation.reference pulse is neither auto nor a column"),
        (
            ["evaluation.published={name: p, source: s, intercept: 0, weights: {ward: 1}}"],
            "evaluation.published.weights names ['ward']; the features are ['age', ",
        ),
        (
            ["evaluation.published={name: p, source: s, intercept: .inf, weights: {age: 1}}"],
            "finite number",
        ),
        (["evaluation.published={name: p, source: s, intercept: 0, weights: {}}"], "at least 1"),
        (["schedule=every day"], "a cron expression of five parts"),
        (["schedule='0 3 * *'"], "a cron expression of five parts"),
        (["schedule='@dayly'"], "a cron expression of five parts"),
        (["schedule='0 25 * * *'"], "no cron expression that ever comes"),
        (["schedule='0 0 30 2 *'"], "no cron expression that ever comes"),
        (["seed=-1"], "greater than or equal to 0"),
        (["columns={}"], "at least 1 item"),
        (["hospitals={}"], "at least 1 item"),
        (["name=UPPER"], "should match pattern"),
        # Source and hospitals.
        (["source.kind=site_column"], "kind site_column needs site_column"),
        (["source.site_column=site"], "kind deal has no site_column"),
        (["source.header=false"], "a CSV without a header needs fields"),
        (["source.fields=[a]"], "fields is for a CSV without a header"),
        (
            ["source.header=false", "source.fields=[id, age, smoker, ward, bmi]"],
            "source.fields lacks ['outcome'], which the study uses",
        ),
        (["source.kind=own"], "hospitals.north: source kind own needs path and nothing else"),
        (["hospitals.north.path=n.csv"], "hospitals.north: source kind deal needs share"),
        (
            ["source.kind=own", "source.synthetic=stroke"],
            "synthetic replaces a table that is dealt out: use kind deal",
        ),
        (["source.delimiter=;;"], "at most 1 character"),
        (["source.format=docx"], "'csv', 'parquet', 'delta', 'xlsx' or 'sql'"),
        (["hospitals.north.share.rows=0"], "greater than or equal to 1"),
        (["hospitals.north.share.positive_rate=1.5"], "less than or equal to 1"),
        (["hospitals.north.share.prefer_mean={age: [60, 0]}"], "greater than 0"),
        (["hospitals.north.share.prefer_mean={ward: [1, 1]}"], "prefer_mean: ward is not numeric"),
        (["hospitals.north.share.prefer_mean={x: [1, 1]}"], "prefer_mean: x is not numeric"),
        (["hospitals.north.share.prefer={ward: {North: 2}}"], "must weight categories"),
        (["hospitals.north.share.prefer={x: {North: 2}}"], "must weight categories"),
        (["hospitals.north.share.prefer={ward: {East Wing: -1}}"], "greater than 0"),
        # Split and model.
        (["split.train=0.7"], "train, validation and test must add up to 1"),
        (["split.train=0", "split.test=0.8"], "greater than 0"),
        (["split.key=''"], "at least 1 character"),
        (["model.head=[]"], "at least 1 item"),
        (["model.head=[8, 0]"], "greater than or equal to 1"),
        (["model.dropout=1"], "less than 1"),
        (["model.learning_rate=.inf"], "finite number"),
        # Federation.
        (["federation.rounds=0"], "greater than or equal to 1"),
        (["federation.learning_rate=.inf"], "finite number"),
        (["federation.momentum=0.9"], "momentum must be 0 (Karimireddy"),
        (
            ["federation.strategy=fedavg", "federation.options.tau=1"],
            "options ['tau'] do not belong to strategy fedavg, which takes none",
        ),
        (
            ["federation.strategy=fedmedian", "federation.weighting.kind=equal"],
            "fedmedian compares single updates and applies no weights",
        ),
        (["federation.weighting.kind=capped"], "cap belongs to kind capped"),
        (["federation.weighting.cap=0.5"], "cap belongs to kind capped"),
        (["federation.selection.kind=random"], "count belongs to every kind but all"),
        (["federation.selection.count=2"], "count belongs to every kind but all"),
        (
            ["federation.selection={kind: random, count: 1}"],
            "selection.count 1 is below min_hospitals 2: no round could succeed",
        ),
        (
            ["federation.selection={kind: random, count: 4}"],
            "federation.selection.count is 4, but the study has 3 hospitals",
        ),
        (["federation.min_hospitals=4"], "federation.min_hospitals is 4, but the study has 3"),
        (
            ["federation.deadlines={round: 60, run: 60}"],
            "deadlines.round must be shorter than deadlines.run",
        ),
        (
            ["federation.strategy=krum", "federation.options.malicious=1"],
            "krum tolerates 1 malicious hospitals only among 5 or more",
        ),
        (["federation.strategy=best"], "'scaffold', 'fedavg'"),
        (["federation.schedule.factor=1"], "less than 1"),
        # Evaluation and gates.
        (["evaluation.strata={medium: 0.2, high: 0.1}"], "0 < medium < high < 1"),
        (["evaluation.strata={medium: 0, high: 0.1}"], "0 < medium < high < 1"),
        (["evaluation.bootstrap=99"], "greater than or equal to 100"),
        (["evaluation.confidence=1"], "less than 1"),
        (["gates.calibration_slope=[2, 1]"], "calibration_slope must be [lowest, highest]"),
        (["gates.max_spread=.inf"], "finite number"),
        (
            ["pooling=forbidden", "gates.min_ratio_to_central=0.9"],
            "gates.min_ratio_to_central needs a centralized model",
        ),
    ],
)
def test_an_invalid_study_is_refused(file: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        read_study(file, overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["schedule='0 3 * * 0'"],
        ["schedule='*/15 0-6,12 * JAN MON#2'"],
        ["schedule='@weekly'"],
        ["schedule=null"],
        ["federation.strategy=krum"],
        ["federation.strategy=fedmedian"],
        ["federation.selection={kind: random, count: 2}"],
        ["federation.weighting={kind: capped, cap: 0.5}"],
        ["evaluation.reference=ward"],
        ["columns.code={type: category, modality: history, categories: ['1', '1.5']}"],
        ["source.header=false", "source.fields=[x, id, age, smoker, ward, bmi, outcome]"],
        ["pooling=forbidden", "gates.min_ratio_to_central=null"],
    ],
)
def test_a_valid_study_is_accepted(file: Path, overrides: list[str]) -> None:
    assert read_study(file, overrides).name == "deal"


SITES = ["source={kind: site_column, site_column: site}"]
NORTH, SOUTH = "hospitals={north: {site: N}, south: {site: S}}", "hospitals.south.site=N"


def test_a_site_column_is_one_of_the_raw_columns(file: Path) -> None:
    study = read_study(file, ["columns.bmi.optional_at=[]", *SITES, NORTH])
    assert study.raw_columns == ["id", "site", "age", "smoker", "ward", "bmi", "outcome"]


def test_two_hospitals_do_not_share_a_site_or_table(file: Path) -> None:
    sites = ["columns.bmi.optional_at=[]", *SITES, NORTH, SOUTH]
    with pytest.raises(StudyError, match=r"hospitals\.north\.site: another hospital has the same"):
        read_study(file, sites)
    paths = ["source.kind=own", "hospitals={north: {path: a.csv}, south: {path: a.csv}}"]
    with pytest.raises(StudyError, match=r"hospitals\.north\.path: another hospital has the same"):
        read_study(file, ["columns.bmi.optional_at=[]", *paths])


def test_a_site_column_is_not_a_feature(file: Path) -> None:
    site = ["source={kind: site_column, site_column: ward}", NORTH, "columns.bmi.optional_at=[]"]
    with pytest.raises(StudyError, match=r"name \['ward'\] twice"):
        read_study(file, site)


@pytest.mark.parametrize("strategy", sorted(ALLOWED_OPTIONS))
def test_a_strategy_takes_its_own_options_and_no_others(file: Path, strategy: str) -> None:
    values: dict[str, Any] = {"trim": 0.2, "malicious": 0}
    every = frozenset().union(*ALLOWED_OPTIONS.values())
    for option in sorted(every):
        choices = [
            f"federation.strategy={strategy}",
            f"federation.options.{option}={values.get(option, 0.5)}",
        ]
        if option in ALLOWED_OPTIONS[strategy]:
            assert getattr(read_study(file, choices).federation.options, option) is not None
        else:
            with pytest.raises(StudyError, match=f"do not belong to strategy {strategy}"):
                read_study(file, choices)


def test_without_pooling_the_ratio_to_central_is_off_and_stays_off(file: Path) -> None:
    study = read_study(file, ["pooling=forbidden", "gates.max_spread=0.2"])
    assert study.gates.min_ratio_to_central is None
    assert study.gates.max_spread == 0.2
    assert Study.model_validate_json(study.model_dump_json()) == study


# Features.


def test_features_are_in_the_order_of_columns_and_categories(study: Study) -> None:
    assert [(feature.name, feature.kind) for feature in study.features] == [
        ("age", "numeric"),
        ("smoker", "binary"),
        ("smoker__missing", "missing"),
        ("ward__east_wing", "category"),
        ("ward__west_wing", "category"),
        ("ward__3_0", "category"),
        ("bmi", "numeric"),
        ("bmi__missing", "missing"),
    ]
    assert [f.category for f in study.features if f.column == "ward"] == [
        "East Wing",
        "West Wing",
        "3.0",
    ]
    assert {feature.modality for feature in study.features if feature.column == "bmi"} == {
        "clinical"
    }


@pytest.mark.parametrize(
    ("categories", "names"),
    [
        (["A+", "A-", "B+"], ["a", "a_2", "b"]),
        (["<65", ">=65"], ["65", "65_2"]),
        (["+", "-"], ["value", "value_2"]),
        (["Missing", "a_2", "a", "A"], ["missing_2", "a_2", "a", "a_3"]),
    ],
    ids=["blood groups", "bounds", "signs", "taken names"],
)
def test_categories_that_are_cleaned_to_one_name_are_numbered(
    file: Path, categories: list[str], names: list[str]
) -> None:
    column = f"{{type: category, modality: history, max_missing: 0.1, categories: {categories}}}"
    found = read_study(file, [f"columns.group={column}"]).features
    own = [feature for feature in found if feature.column == "group"]
    assert [feature.name for feature in own] == [f"group__{n}" for n in [*names, "missing"]]
    assert [feature.category for feature in own] == [*categories, None]


def test_a_code_with_zeros_before_it_needs_quotes(tmp_path: Path) -> None:
    path = tmp_path / "deal.yaml"
    path.write_text(DEAL.replace("[East Wing, West Wing, 3.0]", "[01, 02]"))
    with pytest.raises(StudyError, match=r"deal.yaml:9: .*code 0...1 as 1: put it in quotes"):
        read_study(path)
    path.write_text(DEAL.replace("[East Wing, West Wing, 3.0]", '["01", "02"]'))
    assert read_study(path).columns["ward"].categories == ["01", "02"]


def test_features_depend_on_no_hospital(file: Path, study: Study) -> None:
    fewer = read_study(file, ["hospitals={north: {share: {rows: 9, positive_rate: 0.1}}, south: "
                              "{share: {rows: 9, positive_rate: 0.1}}}"])  # fmt: skip
    assert fewer.features == study.features


def test_raw_columns_are_id_columns_and_target(study: Study, file: Path) -> None:
    assert study.raw_columns == ["id", "age", "smoker", "ward", "bmi", "outcome"]
    assert read_study(file, ["id=null"]).raw_columns == ["age", "smoker", "ward", "bmi", "outcome"]


# Digest and copies.


def test_the_digest_is_the_same_in_another_process(file: Path, study: Study) -> None:
    code = (
        "import sys; from pathlib import Path; from tasks.study import read_study; "
        "print(read_study(Path(sys.argv[1])).digest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        capture_output=True,
        text=True,
        check=True,
        timeout=400,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == study.digest()
    assert len(study.digest()) == 16


def test_the_digest_changes_with_any_value_and_with_the_order_of_columns(
    file: Path, tmp_path: Path, study: Study
) -> None:
    digests = {study.digest()}
    for change in ("seed=2", "title=Other", "columns.age.range=[0, 121]", "split.key=other"):
        digests.add(read_study(file, [change]).digest())
    lines = DEAL.splitlines()
    age, smoker = lines.index("columns:") + 1, lines.index("columns:") + 2
    lines[age], lines[smoker] = lines[smoker], lines[age]
    turned = tmp_path / "turned.yaml"
    turned.write_text("\n".join(lines), encoding="utf-8")
    digests.add(read_study(turned).digest())
    assert len(digests) == 6


def test_the_digest_does_not_depend_on_comments_or_defaults_spelt_out(
    tmp_path: Path, study: Study
) -> None:
    same = tmp_path / "same.yaml"
    same.write_text("# A remark.\n" + DEAL + "seed: 1\nfederation: {rounds: 12}\n")
    assert read_study(same).digest() == study.digest()


@pytest.mark.parametrize("name", ["stroke", "heart"])
def test_a_study_survives_the_round_trip_through_a_plan(checkout: Path, name: str) -> None:
    study = read_study(checkout / "dags" / "studies" / f"{name}.yaml")
    again = Study.model_validate_json(study.model_dump_json())
    assert again == study
    assert again.digest() == study.digest()
    assert again.features == study.features


def test_a_study_is_frozen(study: Study) -> None:
    with pytest.raises(ValidationError):
        study.seed = 2  # type: ignore[misc]


def test_every_key_of_the_schema_is_described() -> None:
    schema = Study.model_json_schema()
    assert schema["additionalProperties"] is False
    for part in schema["$defs"].values():
        assert part.get("type") != "object" or part["additionalProperties"] is False


@pytest.mark.parametrize(
    ("text", "form"),
    [("1", "1"), ("1.0", "1"), (" 1. ", "1"), ("-3.00", "-3"), ("1.5", "1.5"), ("a ", "a")],
)
def test_values_are_compared_in_one_form(text: str, form: str) -> None:
    assert canonical(text) == form
