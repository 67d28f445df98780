"""Reading a study: search, overrides, and errors with file, line and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.errors import ExitCode, StudyError
from tasks.study import Study, find_study, read_study

MINIMAL = """\
name: small
title: Small
pooling: allowed
target: {column: outcome, positive: [1], negative: [0]}
columns:
  age: {type: number, modality: demographics, range: [0, 120]}
  ward:
    type: category
    modality: history
    categories: [a, b]
source:
  kind: own
hospitals:
  north: {path: north.csv}
  south: {path: south.csv}
split:
  key: small
federation:
  rounds: 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def edited(file: Path, old: str, new: str) -> Path:
    assert MINIMAL.count(old) == 1
    file.write_text(MINIMAL.replace(old, new), encoding="utf-8")
    return file


def refusal(file: Path, *overrides: str) -> str:
    with pytest.raises(StudyError) as caught:
        read_study(file, overrides)
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    return str(caught.value)


@pytest.mark.parametrize("name", ["stroke", "heart"])
def test_the_shipped_studies_are_valid(checkout: Path, name: str) -> None:
    study = read_study(checkout / "dags" / "studies" / f"{name}.yaml")
    assert study.name == name


def test_a_study_is_found_by_name_or_path(file: Path) -> None:
    assert find_study("small", file.parent) == file
    assert find_study(str(file), Path("/nowhere")) == file


def test_a_missing_study_is_named_with_the_existing_ones(file: Path) -> None:
    with pytest.raises(StudyError, match=r"no study named 'large' in .*\(there: small\)"):
        find_study("large", file.parent)
    with pytest.raises(StudyError, match=r"large\.yaml: no such study file"):
        find_study("large.yaml", file.parent)
    with pytest.raises(StudyError, match=r"there: none"):
        find_study("large", file.parent / "empty")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: caf\xe9\n", r"small\.yaml: byte 9 is not UTF-8"),
        (b"", r"small\.yaml:1: a study is a mapping"),
        (b"- a\n- b\n", r"small\.yaml:1: a study is a mapping"),
        (b"name: a\ntitle: [b\n", r"small\.yaml:\d: not YAML"),
        (b"name: a\nname: b\n", r"small\.yaml:2: not YAML: found duplicate key"),
        (b"name: a\n\ttitle: b\n", r"small\.yaml:2: not YAML"),
    ],
)
def test_a_file_that_is_not_a_study_is_refused(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    assert re.search(message, refusal(file))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "no.yaml")


def test_a_byte_order_mark_is_accepted(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert read_study(file).name == "small"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # Unknown keys, at each depth.
        ("title: Small", "titel: Small", r":2: titel: unknown key; remove it or look at"),
        ("    type: category", "    kind: category", r":8: columns\.ward\.kind: unknown key"),
        ("path: south.csv", "path: south.csv, beds: 3", r":15: hospitals\.south\.beds: unknown"),
        ("  rounds: 3", "  options: {beta: 1}", r":19: federation\.options\.beta: unknown key"),
        # Missing keys: the line is the group's.
        ("title: Small\n", "", r":1: title: this key is required"),
        ("    type: category\n", "", r":7: columns\.ward\.type: this key is required"),
        ("  key: small", "  train: 0.6", r":16: split\.key: this key is required"),
        # Wrong values, in flow and block style and in lists.
        ("rounds: 3", "rounds: many", r":19: federation\.rounds: Input should be a valid integer"),
        ("rounds: 3", "rounds: 0", r":19: federation\.rounds: .*greater than or equal to 1"),
        ("pooling: allowed", "pooling: maybe", r":3: pooling: .*'allowed' or 'forbidden'"),
        ("type: number", "type: float", r":6: columns\.age\.type: Input should be 'number'"),
        ("range: [0, 120]", "range: [0, old]", r":6: columns\.age\.range\.1: .*valid number"),
        ("name: small\n", "name: Small Study\n", r":1: name: String should match pattern"),
        ("  north: {", "  North: {", r":14: hospitals\.North.*should match pattern"),
        # Between several keys: the line is the first named key's.
        ("range: [0, 120]", "range: [9, 9]", r":6: columns\.age: range must be \[lowest, high"),
        ("rounds: 3", "min_hospitals: 5", r":19: federation\.min_hospitals is 5, but the study"),
        ("column: outcome", "column: age", r":4: target\.column age is also in columns"),
        ("{path: south.csv}", "{site: s}", r":15: hospitals\.south: source kind own needs path"),
    ],
)
def test_a_fault_names_file_line_and_key(file: Path, old: str, new: str, message: str) -> None:
    assert re.search(r"small\.yaml" + message, refusal(edited(file, old, new)))


def test_a_list_item_has_its_own_line(file: Path) -> None:
    text = MINIMAL.replace("range: [0, 120]", "range: [\n    0,\n    old]")
    file.write_text(text, encoding="utf-8")
    assert ":8: columns.age.range.1: Input should be a valid number" in refusal(file)


def test_every_fault_has_a_line_and_ten_are_enough(file: Path) -> None:
    file.write_text(MINIMAL + "".join(f"extra{k}: 1\n" for k in range(13)), encoding="utf-8")
    lines = refusal(file).splitlines()
    assert len(lines) == 11
    assert lines[0].startswith(f"{file}:20: extra0: unknown key")
    assert lines[9].startswith(f"{file}:29: extra9: unknown key")
    assert lines[10] == "... and 3 more"


def test_anchors_and_merges_are_read_and_their_faults_named(file: Path) -> None:
    text = MINIMAL.replace("  age: {", "  age: &number {").replace(
        "  ward:", "  pulse: {<<: *number, range: [20, 300]}\n  ward:"
    )
    file.write_text(text, encoding="utf-8")
    assert read_study(file).columns["pulse"].range == (20, 300)
    file.write_text(text.replace("modality: demographics", "modality: x"), encoding="utf-8")
    assert re.search(r":7: columns\.pulse\.modality", refusal(file))


# Overrides.


def test_an_override_replaces_one_key_and_leaves_the_file(file: Path) -> None:
    before = file.read_bytes()
    study = read_study(file, ["federation.rounds=7", "title=Large one", "seed=9"])
    assert (study.federation.rounds, study.title, study.seed) == (7, "Large one", 9)
    assert study.federation.local_epochs == read_study(file).federation.local_epochs
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("gates.max_spread=0.1", "gates", 0.1),
        ("evaluation.strata.high=0.3", "evaluation", 0.3),
    ],
)
def test_an_override_creates_missing_groups(
    file: Path, override: str, key: str, value: float
) -> None:
    part = read_study(file, [override]).model_dump()[key]
    found = part["max_spread"] if key == "gates" else part["strata"]["high"]
    assert found == value


def test_an_overrides_value_is_yaml(file: Path) -> None:
    study = read_study(
        file,
        [
            "columns.ward.categories=[x, y, z]",
            'schedule="@daily"',
            "gates.min_ratio_to_central=null",
            "columns.pulse={type: number, modality: clinical, range: [20, 300]}",
        ],
    )
    assert study.columns["ward"].categories == ["x", "y", "z"]
    assert study.schedule == "@daily"
    assert study.gates.min_ratio_to_central is None
    assert list(study.columns) == ["age", "ward", "pulse"]


def test_the_last_override_of_a_key_wins(file: Path) -> None:
    assert read_study(file, ["seed=2", "seed=3"]).seed == 3


def test_an_equals_sign_is_allowed_in_the_value(file: Path) -> None:
    assert read_study(file, ["title=a=b"]).title == "a=b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("federation.rounds", "--set federation.rounds: expected path.to.key=value"),
        ("=3", "--set =3: expected path.to.key=value"),
        ("a..b=3", "--set a..b=3: expected path.to.key=value"),
        ("title.x=1", "--set title.x=1: title is a value, not a group of keys"),
        ("columns.age.range.0=1", "columns.age.range is a value, not a group of keys"),
        (
            "federation.rounds=[1",
            "--set federation.rounds=[1: the value is not YAML; put it in quotes",
        ),
        ("schedule=@daily", "--set schedule=@daily: the value is not YAML; put it in quotes"),
        ("federation.rounds=0", "--set federation.rounds: federation.rounds: Input should be"),
        ("federation.rounds=", "--set federation.rounds: federation.rounds: Input should be"),
        ("nope=1", "--set nope: nope: unknown key"),
        ("nope.deep.er=1", "--set nope: nope: unknown key"),
        ("columns.age.nope=1", "--set columns.age.nope: columns.age.nope: unknown key"),
        ("columns=3", "--set columns: columns: Input should be a valid dictionary"),
        ("federation.min_hospitals=4", "--set federation.min_hospitals: federation.min_hosp"),
        ("federation.options.malicious=1", "--set federation.options: federation: options ["),
        ("evaluation.reference=x", "--set evaluation: evaluation.reference x is neither auto"),
        ("target.column=age", "--set target.column: target.column age is also in columns"),
    ],
)
def test_a_faulty_override_is_named_not_the_file(file: Path, override: str, message: str) -> None:
    found = refusal(file, override)
    assert found.startswith("--set ")
    assert message in found
    assert "small.yaml" not in found


def test_a_fault_of_the_file_is_not_blamed_on_an_override(file: Path) -> None:
    edited(file, "rounds: 3", "momentum: 0.9")
    assert ":18: federation: scaffold corrects" in refusal(file, "federation.rounds=5")


def test_an_override_corrects_a_fault_of_the_file(file: Path) -> None:
    edited(file, "rounds: 3", "momentum: 0.9")
    assert read_study(file, ["federation.strategy=fedavg"]).federation.momentum == 0.9


def test_reading_gives_a_study(file: Path) -> None:
    assert isinstance(read_study(file), Study)
