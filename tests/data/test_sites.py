"""A hospital for each site of one table, listed once in a file beside the study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.cli import main
from tasks.data.sites import hospital_names, list_hospitals
from tasks.errors import FedriskError, StudyError
from tasks.settings import Settings
from tasks.study import read_study

STUDY = """
name: register
title: Register
pooling: forbidden
target: {column: died, positive: ["1"], negative: ["0"]}
columns:
  age: {type: number, modality: demographics, range: [0, 120]}
source: {kind: site_column, format: csv, path: register.csv}
hospitals: {from: clinic, min_rows: 20}
split: {key: register}
"""
ROWS = {"Nord": 30, "nord ": 10, "Süd/Ost": 25, "12": 20, "Kleinstadt": 19, "": 5, "unknown": 90}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The study's file, beside its table."""
    rows = [f"{site},{40 + i % 40},{i % 3 == 0:d}" for site, n in ROWS.items() for i in range(n)]
    (tmp_path / "register.csv").write_text("\n".join(["clinic,age,died", *rows]) + "\n")
    file = tmp_path / "register.yaml"
    file.write_text(STUDY)
    return file


def listed(study: Path, tmp_path: Path, *overrides: str) -> str:
    return list_hospitals(study, Settings(home=tmp_path), overrides=overrides)


def test_each_large_site_becomes_a_hospital_however_it_is_spelled(
    study: Path, tmp_path: Path
) -> None:
    told = listed(study, tmp_path)
    assert "3 hospitals with 85 rows; 1 sites of fewer than 20 rows are none" in told
    found = read_study(study)
    sites = {name: hospital.site for name, hospital in found.hospitals.items()}
    assert sites == {"nord": "Nord", "s-d-ost": "Süd/Ost", "site-12": "12"}
    assert (found.source.site_column, found.source.other_sites) == ("clinic", "ignore")


def test_the_list_changes_by_the_command_alone(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StudyError, match=r"register.yaml:\d+: .* not listed yet: run `fedrisk stu"):
        read_study(study)
    assert main(["study", "hospitals", str(study)]) == 0
    assert "3 hospitals" in capsys.readouterr().out
    with (tmp_path / "register.csv").open("a") as table:
        table.write("Neu,50,1\n" * 40)
    assert len(read_study(study).hospitals) == 3
    assert main(["study", "hospitals", str(study)]) == 0
    assert "neu" in read_study(study).hospitals


def test_a_list_of_another_wish_is_refused(study: Path, tmp_path: Path) -> None:
    listed(study, tmp_path)
    study.write_text(STUDY.replace("min_rows: 20", "min_rows: 5"))
    with pytest.raises(StudyError, match="another column or min_rows"):
        read_study(study)
    (tmp_path / "register.yaml.hospitals.json").write_text("{}")
    with pytest.raises(StudyError, match="is no list of hospitals"):
        read_study(study)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("min_rows: 20", "min_rows: 0", r"register.yaml:9: hospitals.min_rows: .*greater than"),
        ("min_rows: 20", "rows: 20", r"register.yaml:9: hospitals.rows: unknown key"),
        ("min_rows: 20", "min_rows: 31", r"but the study has 1 hospitals"),
        ("from: clinic", "from: ward", r"ward"),
        ("split:", "federation: {min_hospitals: 9}\nsplit:", "but the study has 3 hospitals"),
        ("kind: site_column, f", "kind: site_column, site_column: age, f", "of another name"),
        ("kind: site_column", "kind: own", "needs source.kind: site_column"),
    ],
)
def test_what_is_wrong_is_told(study: Path, tmp_path: Path, old: str, new: str, words: str) -> None:
    study.write_text(STUDY.replace(old, new))
    with pytest.raises(FedriskError, match=words):
        listed(study, tmp_path)
    assert not (tmp_path / "register.yaml.hospitals.json").exists()


def test_a_study_that_names_its_hospitals_has_no_list(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.write_text(
        STUDY.replace("{from: clinic, min_rows: 20}", "{from: {site: a}, b: {site: b}}")
    )
    assert main(["study", "hospitals", str(study)]) == 2
    assert "it names each hospital" in capsys.readouterr().err
    assert main(["study", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "from" in json.dumps(schema["properties"]["hospitals"])


def test_names_can_be_those_of_folders_and_keys() -> None:
    sites = ["nord-3", "nord", "nord!", "7", "?", "京", "Pool", "No", "A" * 29 + ".b"]
    assert hospital_names(sites) == [
        *("nord-3", "nord", "nord-2", "site-7", "site", "site-2", "site-pool", "site-no", "a" * 29),
    ]
    assert hospital_names(["nord"], {"nord", "nord-2"}) == ["nord-3"]


def test_a_site_keeps_its_name_and_no_other_gets_it(study: Path, tmp_path: Path) -> None:
    def sites(**rows: int) -> dict[str, str | None]:
        lines = [f"{site},{i % 90},{i % 3 == 0:d}" for site, n in rows.items() for i in range(n)]
        (tmp_path / "register.csv").write_text("\n".join(["clinic,age,died", *lines]) + "\n")
        listed(study, tmp_path)
        return {name: hospital.site for name, hospital in read_study(study).hospitals.items()}

    one, two, three = ("ß", "ä", "ö")
    assert sites(**{one: 50, two: 40}) == {"site": one, "site-2": two}
    assert sites(**{one: 19, two: 60, three: 30}) == {"site-2": two, "site-3": three}
    assert sites(**{one: 25, two: 20, three: 90}) == {"site": one, "site-2": two, "site-3": three}


def test_what_is_set_counts_for_the_list_too(study: Path, tmp_path: Path) -> None:
    study.write_text(
        STUDY.replace("register.csv", "other.csv").replace("age: {", "age: {optional_at: [nord], ")
        + "federation: {selection: {kind: random, count: 3}}\n"
    )
    listed(study, tmp_path, "source.path=register.csv")
    found = read_study(study, ["hospitals.nord.title=North"])
    assert found.hospitals["nord"].title == "North"
    named = "hospitals={nord: {site: N}, b: {site: b}, c: {site: c}}"
    assert [*read_study(study, [named, "source.site_column=clinic"]).hospitals] == [
        "nord",
        "b",
        "c",
    ]
    with pytest.raises(StudyError, match=r"--set hospitals.min_rows=9: .* file alone"):
        read_study(study, ["hospitals.min_rows=9"])


def test_a_hospital_is_not_called_as_another_owner(checkout: Path) -> None:
    with pytest.raises(StudyError, match=r"hospitals.pool: this name is another owner's"):
        read_study(
            checkout / "dags" / "studies" / "stroke.yaml",
            ["hospitals.pool={title: P, share: {rows: 900, positive_rate: 0.06}}"],
        )
