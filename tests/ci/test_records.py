"""Times are shown beside those of former runs, and a check that is flaky again is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedrisk_ci.junit import cases, closing_line, first_failed, folder_seconds
from fedrisk_ci.lanes import Result
from fedrisk_ci.records import Records, cache, folder_table, stage_table


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """No runs yet."""
    return Records(tmp_path / "ci" / "runs.jsonl")


def flaky(folder: Path, check: str = "test_it") -> Result:
    """A stage in which a check failed in the first of two tries."""
    report = folder / "first.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.helm.test_x" name="test_ok" time="1"/>'
        f'<testcase classname="tests.helm.test_x" name="{check}" time="2"><error/></testcase>'
        '<testcase classname="tests.helm.test_x" name="test_then" time="0.5"><failure/></testcase>'
        '<testcase classname="tests.test_y" name="test_z" time="0"><skipped/></testcase>'
        "</testsuite></testsuites>"
    )
    reports = [report, folder / "none.xml"]
    return Result("stack", "FLAKY", wall=9, reports=reports, flaky=first_failed(report))


def test_a_report_gives_tests_folders_and_the_first_failure(tmp_path: Path) -> None:
    reports = flaky(tmp_path).reports
    assert [case.state for case in cases(reports[0])] == ["passed", "failed", "failed", "skipped"]
    assert first_failed(reports[0]) == "tests.helm.test_x::test_it"
    assert folder_seconds(reports) == {"tests/helm": 3.5, "tests": 0.0}
    assert closing_line(reports) == "1 passed, 2 failed, 1 skipped"


def test_a_test_that_passed_when_tried_once_more_counts_as_passed(tmp_path: Path) -> None:
    first = flaky(tmp_path).reports[0]
    second = tmp_path / "second.xml"
    second.write_text(first.read_text().replace("<error/>", "").replace("<failure/>", ""))
    assert closing_line([first, second]) == "3 passed, 0 failed, 1 skipped"


def test_the_largest_change_since_the_last_good_end_comes_first(records: Records) -> None:
    records.add([Result("a", "passed", wall=10, cpu=5), Result("b", "passed", wall=10)], {}, "r", 0)
    records.add([Result("a", "FAILED", wall=500), Result("b", "FAILED", wall=1)], {}, "r", 1)
    now = [Result("a", "passed", wall=11, cpu=7), Result("b", "passed", wall=4), Result("c")]
    lines = [line.split() for line in stage_table(now, records).splitlines()]
    assert [line[0] for line in lines] == ["stage", "b", "a", "c"]
    assert lines[2] == ["a", "11", "10", "+1", "7", "5", "+2", "passed"]
    assert lines[3] == ["c", "0", "-", "-", "0", "-", "-", "not", "run"]


def test_records_outlast_a_process_and_a_broken_line(records: Records, tmp_path: Path) -> None:
    for number in range(60):
        records.add([Result("a", "passed", wall=number)], {"tests": 1.25}, "abc", 0)
    path = tmp_path / "ci" / "runs.jsonl"
    path.write_text(path.read_text() + '{"half": ')
    again = Records(path)
    assert (len(again.runs), again.last("a")) == (50, (59, 0))
    assert again.runs[-1]["folders"] == {"tests": 1.2}


def test_folders_over_their_budget_come_first() -> None:
    table = folder_table({"a": 10, "b": 10, "c": 1}, {"a": 20, "b": 5})
    assert [" ".join(line.split()) for line in table.splitlines()] == [
        "folder s budget", "b 10 5 over by 5", "c 1 - no budget", "a 10 20 under by 10",
    ]  # fmt: skip


@pytest.mark.parametrize(("between", "again"), [(8, True), (9, False)])
def test_a_check_that_is_flaky_twice_in_ten_runs_is_named(
    records: Records, tmp_path: Path, between: int, again: bool
) -> None:
    assert records.flaky_again([flaky(tmp_path)]) == []
    records.add([flaky(tmp_path)], {}, "r", 0)
    for _ in range(between):
        # Runs that did not come to the stage do not count.
        records.add([Result("stack")], {}, "r", 1)
        records.add([Result("stack", "passed", wall=1)], {}, "r", 0)
    found = records.flaky_again([flaky(tmp_path)])
    assert found == ["tests.helm.test_x::test_it"] * again
    assert records.flaky_again([flaky(tmp_path, "test_another")]) == []


def test_records_are_kept_where_the_user_has_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache() == tmp_path / "fedrisk" / "ci"


def test_a_machine_is_slow_where_the_fast_tests_take_much_more_cpu_time(records: Records) -> None:
    def ran(cpu: float, state: str = "passed") -> dict[str, Result]:
        return {"fast": Result("fast", state, cpu=cpu)}

    assert records.slow(ran(900)) == records.slow({}) == ""
    for cpu, state in ((300.0, "passed"), (200.0, "passed"), (10.0, "FAILED")):
        records.add(list(ran(cpu, state).values()), {}, "r", 0)
    assert records.slow(ran(299)) == ""
    assert records.slow(ran(301)) == "the machine is slow (fast took 301 CPU-s, at best 200)"
