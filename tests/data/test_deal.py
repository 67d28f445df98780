"""The demonstration's deal: exact sizes and positives, every patient once, order of no matter."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest

from tasks.data.sharing import largest_remainder, sizes
from tasks.errors import DataError
from tasks.run.plan import Request, make_plan
from tasks.run.step import run_step
from tasks.settings import Settings
from tasks.study import Share
from tests.data.conftest import House, Rows, patients, text_of

SIZES = {"hospital-1": (1700, 153), "hospital-2": (1400, 21), "hospital-3": (2010, 75)}


def dealt(home: Path, studies: Path, run: str, **request: object) -> dict[str, Path]:
    settings = Settings(home=home, studies=studies)
    make_plan(Request.model_validate({"study": "stroke", **request}), run, settings)
    done = run_step("deal", run, settings)
    return {name: settings.runs / run / file for name, file in done.files.items()}


@pytest.mark.shared
def test_the_real_table_is_dealt_out_exactly(
    tmp_path: Path, checkout: Path, stroke_csv: Path, rows_of: Callable[[Path], Rows]
) -> None:
    studies = checkout / "dags" / "studies"
    files = dealt(tmp_path, studies, "a", source=str(stroke_csv))
    tables = {name: rows_of(file) for name, file in files.items()}
    header, *source = rows_of(stroke_csv)
    assert all(table[0] == header for table in tables.values())
    found = {n: (len(t) - 1, sum(row[-1] == "1" for row in t[1:])) for n, t in tables.items()}
    assert found == SIZES
    assert sorted(row for t in tables.values() for row in t[1:]) == sorted(source)
    age = {n: mean(float(row[2]) for row in t[1:]) for n, t in tables.items()}
    assert age["hospital-1"] > age["hospital-3"] > age["hospital-2"]
    urban = {n: mean(row[7] == "Urban" for row in t[1:]) for n, t in tables.items()}
    assert urban["hospital-1"] > urban["hospital-3"] + 0.1


@pytest.mark.shared
def test_the_deal_depends_on_the_seed_and_not_on_the_order_of_rows(
    tmp_path: Path, checkout: Path, stroke_csv: Path, rows_of: Callable[[Path], Rows]
) -> None:
    studies = checkout / "dags" / "studies"
    header, *rows = rows_of(stroke_csv)
    random.Random(3).shuffle(rows)
    shuffled = tmp_path / "shuffled.csv"
    shuffled.write_text(text_of(rows, header))
    runs = {
        "a": dealt(tmp_path, studies, "a", source=str(stroke_csv)),
        "b": dealt(tmp_path, studies, "b", source=str(shuffled)),
        "c": dealt(tmp_path, studies, "c", source=str(stroke_csv), seed=2),
        "d": dealt(
            tmp_path, studies, "d", source=str(stroke_csv), hospitals=["hospital-2", "hospital-3"]
        ),
    }
    sets = {
        run: {n: frozenset(row[0] for row in rows_of(f)) for n, f in files.items()}
        for run, files in runs.items()
    }
    assert sets["a"] == sets["b"]
    assert all(sets["a"][name] != sets["c"][name] for name in SIZES)
    assert sets["d"] == {name: sets["a"][name] for name in ("hospital-2", "hospital-3")}


def test_the_cohort_has_the_sizes_and_counts_of_the_study(
    tmp_path: Path, checkout: Path, rows_of: Callable[[Path], Rows]
) -> None:
    files = dealt(tmp_path, checkout / "dags" / "studies", "a")
    found = {}
    for name, file in files.items():
        header, *rows = rows_of(file)
        found[name] = (len(rows), sum(row[header.index("stroke")] == "1" for row in rows))
    assert found == {"hospital-1": (1700, 204), "hospital-2": (1400, 28), "hospital-3": (2010, 100)}


def share(rows: int, rate: float) -> Share:
    return Share(rows=rows, positive_rate=rate)


def test_rates_keep_their_ratio_under_one_factor() -> None:
    shares = {"a": share(1700, 0.12), "b": share(1400, 0.02), "c": share(2010, 0.05)}
    assert sizes(shares, 5110, 249) == dict(zip("abc", SIZES.values(), strict=True))


def test_a_table_of_another_size_is_dealt_out_in_proportion() -> None:
    counts = sizes({"a": share(100, 0.1), "b": share(200, 0.1)}, 1000, 90)
    assert counts == {"a": (333, 30), "b": (667, 60)}


def test_no_hospital_gets_more_positives_than_patients() -> None:
    counts = sizes({"a": share(10, 0.9), "b": share(90, 0.1)}, 100, 60)
    assert counts == {"a": (10, 10), "b": (90, 50)}


def test_rounding_keeps_the_sum() -> None:
    assert largest_remainder([0.5, 0.5, 1.0], 2) == [1, 0, 1]


def by_site(house: House, rows: Rows) -> None:
    house.study(
        source=", site_column: site, path: all.csv",
        change=("kind: own", "kind: site_column"),
    )
    file = house.folder / "small.yaml"
    text = file.read_text().replace("{path: north.csv}", "{site: N}")
    file.write_text(text.replace("{path: south.csv}", "{site: '2'}"))
    header = ["id", "age", "sex", "smoker", "bmi", "visits", "stroke", "site"]
    (house.folder / "all.csv").write_text(text_of(rows, header))


def test_a_site_column_splits_the_table(house: House, rows_of: Callable[[Path], Rows]) -> None:
    by_site(house, [[*row, "N" if i % 4 else "2.0"] for i, row in enumerate(patients())])
    done = house.steps("site", "deal", hospital=None)
    assert done.figures["hospitals"] == {
        "north": {"rows": 60, "positives": 12},
        "south": {"rows": 20, "positives": 4},
    }
    north = rows_of(house.settings.runs / "site" / done.files["north"])
    assert {row[-1] for row in north[1:]} == {"N"}


def test_rows_of_an_unknown_site_are_counted(house: House) -> None:
    by_site(house, [[*row, "N" if i % 4 else "Nowhere"] for i, row in enumerate(patients())])
    with pytest.raises(DataError, match="20 of 80 rows names no hospital") as caught:
        house.steps("site", "deal", hospital=None)
    assert "Nowhere" not in str(caught.value)
