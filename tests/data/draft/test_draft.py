"""A draft says what it sees, passes the checks of study and tables, and shows no row."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tasks.cli import main
from tasks.data.draft.write import DECIDE, outwards
from tasks.data.table_check import TableCheck, check_tables
from tasks.run.plan import Request
from tasks.settings import Settings
from tasks.study import Study, read_study

HEADER = ["Patient-ID", "Age (years)", "Sex", "Smoker", "CRP [mg/L]", "Stage", "Died", "Note"]
ROWS = 240


def rows(seed: int = 3) -> list[list[str]]:
    """Made-up patients: an age, texts, a flag, a number that is missing at times, codes, a note."""
    draw = random.Random(seed)
    return [
        [
            f"P{seed}{i:04d}",
            str(draw.randint(19, 93)),
            draw.choice(["female", "male"]),
            draw.choice(["yes", "no"]),
            "n/a" if i % 9 == 0 else f"{draw.uniform(0.3, 187.2):.3f}",
            str(draw.randint(1, 4)),
            "1" if draw.random() < 0.3 else "0",
            f"Mrs Zebra{i} came late",
        ]
        for i in range(ROWS)
    ]


def text_of(table: list[list[str]], delimiter: str = ",", header: list[str] | None = HEADER) -> str:
    lines = [header, *table] if header else table
    return "".join(delimiter.join(line) + "\n" for line in lines)


def draft(path: Path, *arguments: str) -> tuple[str, Study]:
    """The text of a draft, and the study that it is."""
    out = path.parent / "drafted.yaml"
    out.unlink(missing_ok=True)
    assert main(["study", "draft", str(path), *arguments, "--out", str(out)]) == 0
    return out.read_text(), read_study(out)


def checked(folder: Path) -> list[TableCheck]:
    """What the data steps say of the tables of the draft in a folder."""
    request = Request(study=str(folder / "drafted.yaml"))
    return list(check_tables(request, Settings(home=folder / "home")))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "clinic.csv"
    path.write_text(text_of(rows()))
    return path


def test_it_says_what_it_sees(table: Path) -> None:
    text, study = draft(table)
    assert study.id == "Patient-ID"
    assert (study.target.column, study.target.positive) == ("Died", ["1"])
    age, crp = study.columns["Age"], study.columns["CRP"]
    assert (age.type, age.unit, age.aliases) == ("integer", "years", ["Age (years)"])
    assert age.range == (10, 110)
    assert (crp.type, crp.unit, crp.missing) == ("number", "mg/L", ["n/a"])
    assert 0.1 < crp.max_missing < 0.3
    assert study.columns["Smoker"].type == "flag"
    assert sorted(study.columns["Sex"].categories) == ["female", "male"]
    assert (age.modality, study.columns["Smoker"].modality) == ("demographics", "lifestyle")
    assert set(study.columns["Stage"].categories) == set("1234")
    assert "codes, or a number" in text
    assert f"Note: {ROWS} different texts" in text
    assert text.count(DECIDE) >= 7


def test_no_value_of_a_number_or_a_free_text_is_printed(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, _ = draft(table)
    assert main(["study", "draft", str(table)]) == 0
    printed = text + capsys.readouterr().out
    for row in rows():
        assert row[0] not in printed
        assert row[7] not in printed
        assert row[4] == "n/a" or row[4] not in printed


def comma(table: list[list[str]]) -> list[list[str]]:
    return [[cell.replace(".", ",") for cell in row] for row in table]


def thousands(table: list[list[str]]) -> list[list[str]]:
    return [
        [*r[:4], "" if r[4] == "n/a" else f"{float(r[4]) * 900:,.2f}".translate(_SWAP), *r[5:]]
        for r in table
    ]


_SWAP = str.maketrans(",.", ".,")


def spelled(table: list[list[str]]) -> list[list[str]]:
    return [
        [*r[:2], [r[2], r[2].upper()][i % 2], {"yes": "Y", "no": "N"}[r[3]], *r[4:]]
        for i, r in enumerate(table)
    ]


def coded(table: list[list[str]]) -> list[list[str]]:
    return [[r[0], "999" if i % 20 == 0 else r[1], *r[2:]] for i, r in enumerate(table)]


def as_sheet(path: Path) -> Path:
    book = openpyxl.Workbook()
    for line in [HEADER, *rows()]:
        book.active.append([float(c) if c.replace(".", "").isdigit() else c for c in line])
    book.save(path.with_suffix(".xlsx"))
    return path.with_suffix(".xlsx")


def as_parquet(path: Path) -> Path:
    columns = list(zip(*rows(), strict=True))
    named: dict[str, Any] = dict(zip(HEADER, map(list, columns), strict=True))
    named["Age (years)"] = [float(x) for x in columns[1]]
    named["CRP [mg/L]"] = [None if x == "n/a" else float(x) for x in columns[4]]
    named["Smoker"] = [x == "yes" for x in columns[3]]
    named["scans"] = [[1, 2]] * ROWS
    parquet.write_table(pa.table(named), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def written(content: str | bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


KINDS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "commas": (written(text_of(rows())), {}),
    "semicolons": (written(text_of(rows(), ";")), {"delimiter": ";"}),
    "tabs": (written(text_of(rows(), "\t")), {"delimiter": "\t"}),
    "Windows' encoding": (
        written(text_of(rows(), header=[*HEADER[:-1], "Größe “x”"]).encode("cp1252")),
        {"encoding": "cp1252"},
    ),
    "UTF-16": (written(text_of(rows()).encode("utf-16")), {"encoding": "utf-16"}),
    "a title": (written("Clinic of St Nowhere\n\n" + text_of(rows())), {"skip": 2}),
    "no header": (written(text_of(rows(), header=None)), {"header": False}),
    "a decimal comma": (
        written(text_of(comma(rows()), ";")), {"delimiter": ";", "decimal": ","}
    ),
    "points between thousands": (
        written(text_of(thousands(rows()), ";")), {"decimal": ",", "thousands": "."}
    ),
    "flags as letters, texts in any case": (written(text_of(spelled(rows()))), {}),
    "a number for missing": (written(text_of(coded(rows()))), {}),
    "a sheet": (as_sheet, {"format": "xlsx"}),
    "Parquet with a nested column": (as_parquet, {"format": "parquet"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_draft_of_any_table_passes_the_checks(tmp_path: Path, kind: str) -> None:
    make, source = KINDS[kind]
    path = make(tmp_path / "clinic.csv")
    target = ["--target", "column_7"] if kind == "no header" else ["--target", "Died"]
    _, study = draft(path, *target)
    assert {name: getattr(study.source, name) for name in source} == source
    found = checked(tmp_path)
    assert [each.error for each in found] == [""] * 3
    assert sum(each.kept for each in found) == ROWS
    if kind == "a number for missing":
        assert study.columns["Age"].missing == ["999"]
        assert study.columns["Age"].range == (10, 110)


def test_a_site_column_makes_a_hospital_of_each_large_site(tmp_path: Path) -> None:
    path = tmp_path / "register.csv"
    places = ["St. Mary", "Zürich 2", "7"]
    table = [[*row, places[i % 3] if i < 220 else "tiny"] for i, row in enumerate(rows())]
    for row in table[1::3]:
        row[4] = "n/a"
    path.write_text(text_of(table, header=[*HEADER, "centre"]))
    text, study = draft(path)
    assert study.source.site_column == "centre"
    assert {h.site for h in study.hospitals.values()} == set(places)
    assert set(study.hospitals) == {"st-mary", "z-rich-2", "site-7"}
    assert study.columns["CRP"].max_missing == 1
    assert 'DECIDE: site column: "centre"' in text
    found = checked(tmp_path)
    assert [each.error for each in found] == [""] * 3


def test_a_table_a_hospital_becomes_a_study_of_their_own_tables(tmp_path: Path) -> None:
    for seed, name in enumerate(("export-north-2024", "export-south-2024"), 1):
        table, header = rows(seed), list(HEADER)
        if seed == 2:
            table, header = [row[:5] + row[6:] for row in table], [*HEADER[:5], *HEADER[6:]]
        (tmp_path / f"{name}.csv").write_text(text_of(table, header=header))
    _, study = draft(tmp_path / "export-north-2024.csv", str(tmp_path / "export-south-2024.csv"))
    assert {n: h.path for n, h in study.hospitals.items()} == {
        "north": "export-north-2024.csv", "south": "export-south-2024.csv",
    }  # fmt: skip
    assert study.pooling == "forbidden"
    assert study.columns["Stage"].optional_at == ["south"]
    found = checked(tmp_path)
    assert [each.error for each in found] == [""] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "Dead"], "there is no column Dead; the tables have Patient-ID"),
        (["--positive", "maybe"], "column Died has no value maybe; it has 0, 1"),
        (["--target", "Note"], "column Note has no two values"),
        (["--site", "Sex", "--target", "Smoker", "--positive", "2"], "has no value 2"),
    ],
)
def test_what_cannot_be_drafted_is_said(
    table: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["study", "draft", str(table), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_table_of_ascii_alone_has_the_encoding_of_the_others(table: Path) -> None:
    other = table.with_name("other.csv")
    other.write_bytes(text_of(rows(4)).replace("came late", "k\u00e4m sp\u00e4t").encode("cp1252"))
    _, study = draft(table, str(other))
    assert study.source.encoding == "cp1252"


def test_tables_in_two_dialects_are_refused(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = table.with_name("other.csv")
    other.write_text(text_of(rows(4), ";"))
    assert main(["study", "draft", str(table), str(other)]) == 2
    assert "other.csv is not written as clinic.csv is" in capsys.readouterr().err


def test_a_file_that_is_there_is_kept(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "draft", str(table), "--out", str(table)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert table.read_text() == text_of(rows())


@pytest.mark.parametrize(
    ("seen", "expected"),
    [((0.08, 82), (0, 100)), ((-2.6, 6.2), (-4, 8)), ((0.001, 0.04), (0, 0.044)), ((5, 5), (4, 6))],
)
def test_a_range_is_round_and_wider_than_what_was_seen(
    seen: tuple[float, float], expected: tuple[float, float]
) -> None:
    low, high = outwards(*seen)
    assert (low, high) == pytest.approx(expected, abs=1e-9)
    assert low <= seen[0]
    assert high >= seen[1]


def small(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_remark_in_a_column_of_numbers_is_not_printed(tmp_path: Path) -> None:
    lines = [f"{i},{'Mrs Zebra refused' if i == 7 else 20 + i % 60},{i % 2}" for i in range(99)]
    path = small(tmp_path / "a.csv", "nr,age,died\n" + "\n".join(lines))
    text, study = draft(path)
    assert "Zebra" not in text
    assert study.columns["age"].type == "integer"


def test_headers_and_values_cannot_write_yaml(tmp_path: Path) -> None:
    lines = [f"{i},{30 + i % 50},{i % 2}" for i in range(99)]
    header = 'nr,age,"died\npooling: allowed\nschedule: x"\n'
    text, study = draft(small(tmp_path / "a.csv", header + "\n".join(lines)))
    assert study.target.column.startswith("died")
    assert study.schedule is None
    assert text.count("\nschedule:") == 1


def test_tables_of_two_hospitals_are_merged_by_what_they_say(tmp_path: Path) -> None:
    one = [f"{i},{20 + i % 60},{('Male', 'Female')[i % 2]},{i % 2}" for i in range(90)]
    two = [f"{i},{20 + i % 4},{('male', 'FEMALE')[i % 2]},{i % 2}" for i in range(60)]
    for name, lines in (("north", one), ("south", two)):
        small(tmp_path / f"{name}.csv", "patient_id,age,sex,died\n" + "\n".join(lines) + "\n")
    _, study = draft(tmp_path / "north.csv", str(tmp_path / "south.csv"))
    assert study.id == "patient_id"
    assert study.columns["age"].type == "integer"
    assert study.columns["age"].range == (10, 90)
    assert len(study.columns["sex"].categories) == 2
    found = checked(tmp_path)
    assert [each.kept for each in found] == [90, 60]


def test_an_id_that_repeats_is_no_feature(tmp_path: Path) -> None:
    table = rows()
    for place, row in enumerate(table):
        row[0] = str(1000 + place // 4)
    path = tmp_path / "visits.csv"
    path.write_text(text_of(table))
    text, study = draft(path)
    assert study.id is None
    assert "Patient-ID" not in text.partition("columns:")[2].partition("# Left out")[0]
    assert 'DECIDE: id: "Patient-ID" repeats' in text


def test_an_outcome_in_hospital_is_no_site(tmp_path: Path) -> None:
    lines = [f"{i},{20 + i % 60},{i % 2},2020" for i in range(200)]
    path = small(tmp_path / "a.csv", "nr,age,hospital_death,year\n" + "\n".join(lines))
    for named in ([], ["--target", "hospital_death"]):
        text, study = draft(path, *named)
        assert study.target.column == "hospital_death"
        assert study.source.kind == "deal"
        assert "year: one value" in text


def test_commas_between_thousands_are_no_decimals(tmp_path: Path) -> None:
    lines = [f"{i}|1,{100 + i}|{i % 2}" for i in range(200)]
    _, study = draft(small(tmp_path / "a.csv", "nr|cost|died\n" + "\n".join(lines)))
    assert (study.source.decimal, study.source.thousands) == (".", ",")
    assert study.columns["cost"].range == (1080, 1320)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", b"no archive", "cannot be unpacked or read"),
        ("a.csv", b"", "the file is empty"),
    ],
)
def test_what_is_no_table_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["study", "draft", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.shared
def test_a_draft_of_the_real_stroke_table_predicts_as_the_shipped_study_does(
    stroke_csv: Path, checkout: Path, tmp_path: Path
) -> None:
    """The pooled model over the same folds, each study with the features that it names."""
    import pandas as pd
    from sklearn.model_selection import StratifiedKFold

    from tasks.model.fitting import fit
    from tasks.model.metrics import auroc
    from tasks.model.raw import raw_to_features
    from tasks.model.rows import PARTS, Rows

    out = tmp_path / "drafted.yaml"
    assert main(["study", "draft", str(stroke_csv), "--out", str(out)]) == 0
    drafted = read_study(out)
    shipped = read_study(checkout / "dags" / "studies" / "stroke.yaml")
    assert (drafted.target.column, drafted.target.positive) == ("stroke", ["1"])
    frame = pd.read_csv(stroke_csv, dtype=str, keep_default_na=False)
    y = (frame["stroke"] == "1").to_numpy().astype(np.float32)
    inputs = {study.name: raw_to_features(frame, study) for study in (drafted, shipped)}
    found: dict[str, list[float]] = {name: [] for name in inputs}
    folds = StratifiedKFold(3, shuffle=True, random_state=3)
    for number, (rest, test) in enumerate(folds.split(y, y)):
        part = np.full(len(y), PARTS.index("train"), np.int8)
        held = np.random.default_rng(number).random(len(rest)) < 0.25
        part[rest[held]] = PARTS.index("validation")
        part[test] = PARTS.index("test")
        for study in (drafted, shipped):
            x = inputs[study.name]
            model = fit(Rows(x, y, part), study, number).model
            found[study.name].append(auroc(y[test], model.logits(x[test])) or 0.0)
    means = {name: float(np.mean(each)) for name, each in found.items()}
    print(means)
    assert abs(means[drafted.name] - means[shipped.name]) <= 0.005


def test_a_damaged_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pa.table({"age": range(300), "died": [int(i % 4 == 0) for i in range(300)]})
    file = tmp_path / "cohort.parquet"
    parquet.write_table(rows, file)
    content = file.read_bytes()
    file.write_bytes(content[:200] + b"\0" * 300 + content[500:])
    assert main(["study", "draft", str(file), "--target", "died"]) == 2
    said = capsys.readouterr().err
    assert file.name in said
    assert "damaged" in said


@pytest.mark.parametrize(
    ("values", "tells"),
    [
        (lambda died, i: "home" if not died else ["morgue", "hospice"][i % 2], True),
        (lambda died, i: f"{i % 7 + 100 * died},{i % 10}", True),
        (lambda died, i: f"{3 + i % 50}" if died else "", True),
        (lambda died, i: f"{i % 60 + 20 * died}", False),
        (lambda died, i: ["a", "b"][i % 2], False),
    ],
    ids=["values", "numbers", "known or not", "a good measurement", "chance"],
)
def test_a_column_that_tells_the_outcome_is_named(
    tmp_path: Path, values: Callable[[bool, int], str], tells: bool
) -> None:
    lines = ["age;Entlassung;died"]
    lines += [f"{i % 71};{values(i % 3 == 0, i)};{i % 3 == 0:d}" for i in range(300)]
    (tmp_path / "one.csv").write_text("\n".join(lines) + "\n")
    text, study = draft(tmp_path / "one.csv", "--target", "died")
    assert "Entlassung" in study.columns
    named = [line for line in text.splitlines() if "alone tells it" in line]
    assert bool(named) == tells
    assert all('"Entlassung"' in line and line.startswith(DECIDE.strip()) for line in named)


def test_it_is_named_where_a_table_is_small_and_outcomes_are_missing(tmp_path: Path) -> None:
    for name, size in (("one", 300), ("two", 12)):
        lines = ["age,left_to,died"]
        for i in range(size):
            died = i % 3 == 0
            outcome = "" if i % 4 == 1 else f"{died:d}.0"
            lines.append(f"{i % 71},{'home' if not died else 'morgue'},{outcome}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    tables = [str(tmp_path / f"{name}.csv") for name in ("one", "two")]
    out = tmp_path / "drafted.yaml"
    assert main(["study", "draft", *tables, "--target", "died", "--out", str(out)]) == 0
    assert '"left_to" alone tells it' in out.read_text()
