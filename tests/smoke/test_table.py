"""The table that a smoke command ends with."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from smoke.table import Table


def test_it_ends_well_only_if_all_held(tmp_path: Path) -> None:
    table = Table(io.StringIO())
    assert table.end() == 1, "nothing looked at is nothing shown"
    with table.stage("up"):
        table.check("answers", "it answers", True, 200)
    assert table.end(tmp_path / "table.json") == 0
    table.check("ends", "it ends", False, "still there")
    assert table.end() == 1
    found = json.loads((tmp_path / "table.json").read_text())
    assert found["checks"] == [
        {"stage": "up", "id": "answers", "what": "it answers", "held": True, "seen": "200"}
    ]
    assert set(found["seconds"]) == {"up"}


def test_what_a_log_has_for_a_terminal_is_left_out() -> None:
    table = Table(io.StringIO())
    table.check("warns", "it warns", True, "\x1b[93mWARNING \x1b[0m:  once")
    assert table.checks[0].seen == "WARNING : once"


def test_a_stage_that_raises_is_a_check_that_did_not_hold() -> None:
    out = io.StringIO()
    table = Table(out)
    with pytest.raises(OSError, match="no engine"), table.stage("build"):
        raise OSError("no engine")
    assert table.end() == 1
    assert "NO    no engine" in out.getvalue()
    assert "1 of 1 did not hold" in out.getvalue()


def test_what_is_not_looked_at_neither_holds_nor_fails(tmp_path: Path) -> None:
    out = io.StringIO()
    table = Table(out)
    with table.stage("pages"):
        table.leave("page", "the pages in a browser", "there is no browser")
    assert table.end() == 1, "nothing was looked at"
    table.check("answers", "it answers", True)
    assert table.end(tmp_path / "table.json") == 0
    assert "all 1 checks held, 1 not looked at" in out.getvalue()
    found = json.loads((tmp_path / "table.json").read_text())
    assert [each["id"] for each in found["checks"]] == ["answers"]
    assert found["unseen"] == [
        {
            "stage": "pages",
            "id": "page",
            "what": "the pages in a browser",
            "why": "there is no browser",
        }
    ]
