"""A hospital's approved studies: what its file allows and what it never does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import SettingsError
from tasks.study import Study, read_study
from tasks.study.approval import read_approved, terms_digest

STUDY = """\
name: small
title: Small
pooling: allowed
target: {column: outcome, positive: [1], negative: [0]}
columns:
  age: {type: number, modality: demographics, range: [0, 120]}
  bmi: {type: number, modality: clinical, range: [8, 120]}
source: {kind: own}
hospitals:
  north: {path: north.csv}
  south: {path: south.csv}
split: {key: small}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


@pytest.fixture
def study(file: Path) -> Study:
    return read_study(file)


def approved(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "approved.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_study_approved_by_name_may_run(tmp_path: Path, study: Study) -> None:
    found = read_approved(approved(tmp_path, "studies:\n  - name: small\n"))
    assert found.refusal(study) is None


def test_a_study_that_is_not_named_is_refused_without_naming_others(
    tmp_path: Path, study: Study
) -> None:
    found = read_approved(approved(tmp_path, "studies:\n  - name: secret-one\n"))
    reason = found.refusal(study) or ""
    assert "has not approved study small" in reason
    assert "secret-one" not in reason


def test_an_empty_list_approves_nothing(tmp_path: Path, study: Study) -> None:
    assert read_approved(approved(tmp_path, "studies: []\n")).refusal(study)


def test_a_digest_approves_those_terms_only(tmp_path: Path, file: Path, study: Study) -> None:
    text = f"studies:\n  - name: small\n    digest: {terms_digest(study)}\n"
    found = read_approved(approved(tmp_path, text))
    assert found.refusal(study) is None
    changed = read_study(file, ["federation.rounds=400"])
    reason = found.refusal(changed) or ""
    assert "not the one that this hospital approved" in reason
    assert terms_digest(changed) in reason


@pytest.mark.parametrize(
    "override",
    [
        "title=Another",
        "schedule='@daily'",
        "seed=7",
        "gates.max_spread=0.5",
        "hospitals.west={path: west.csv}",
        "federation.deadlines.round=9",
        "federation.executor=stock",
        "compute.place_within=42",
    ],
)
def test_keys_that_are_not_terms_keep_the_digest(file: Path, study: Study, override: str) -> None:
    assert terms_digest(read_study(file, [override])) == terms_digest(study)


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "columns.age.range=[0, 200]",
        "columns.sex={type: flag, modality: demographics}",
        "target.positive=[2]",
        "evaluation.min_count=1",
        "evaluation.cross_site=false",
        "federation.min_hospitals=1",
        "split.train=0.61",
        "model.embedding=4096",
    ],
)
def test_a_changed_term_changes_the_digest(file: Path, study: Study, override: str) -> None:
    extra = ["split.test=0.19"] if override.startswith("split") else []
    assert terms_digest(read_study(file, [override, *extra])) != terms_digest(study)


def test_pooling_is_a_term(tmp_path: Path, study: Study) -> None:
    path = tmp_path / "forbidden.yaml"
    path.write_text(STUDY.replace("pooling: allowed", "pooling: forbidden"), encoding="utf-8")
    assert terms_digest(read_study(path)) != terms_digest(study)


def test_the_order_of_columns_is_a_term(tmp_path: Path, study: Study) -> None:
    lines = STUDY.splitlines()
    lines[5], lines[6] = lines[6], lines[5]
    path = tmp_path / "swapped.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert terms_digest(read_study(path)) != terms_digest(study)


def test_a_frozen_copy_has_the_same_digest(study: Study) -> None:
    copy = Study.model_validate_json(study.model_dump_json())
    assert terms_digest(copy) == terms_digest(study)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the key studies"),
        ("- small\n", "expected the key studies"),
        ("studies:\n", "studies: Input should be a valid list"),
        ("studies: [small]\n", "studies.0"),
        ("studies: [{name: Small}]\n", "studies.0.name"),
        ("studies: [{name: small, digest: abc}]\n", "studies.0.digest"),
        ("studies: [{name: small}, {name: small}]\n", "names small twice"),
        ("studies: [{name: small, until: 2027}]\n", "studies.0.until"),
        ("studies: [\n", "not YAML"),
    ],
)
def test_an_invalid_file_is_an_error_and_not_an_approval(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_approved(approved(tmp_path, text))
    assert message in str(caught.value)
    assert "approved.yaml" in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_approved(tmp_path / "absent.yaml")


def test_bytes_that_are_not_utf8_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "approved.yaml").write_bytes(b"studies: [\xff]")
    with pytest.raises(SettingsError, match="UTF-8"):
        read_approved(tmp_path / "approved.yaml")
