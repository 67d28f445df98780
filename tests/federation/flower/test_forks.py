"""What a fork hands back to the process that it was made of."""

from __future__ import annotations

import os
from io import BufferedReader, BytesIO
from typing import Any

import numpy as np
import pytest

from tasks.federation.flower.forks import Shared, done_in_a_fork, read_whole, write_whole


def test_arrays_are_written_from_their_places_and_come_whole() -> None:
    rows = np.arange(300_000.0).reshape(-1, 3)
    written, shared = BytesIO(), Shared()
    # A part of a table is a view of all of it.
    some = {"x": rows[1000:], "y": rows[:10, 0].astype("f4"), "none": rows[:0]}
    write_whole(some, written, shared)
    content = written.getvalue()
    assert len(content) < rows[1000:].nbytes + 1000, "an array was copied into the text"
    found = read_whole(BufferedReader(BytesIO(content)), shared)
    assert np.array_equal(found["x"], rows[1000:])
    assert found["x"].dtype == np.float64
    assert found["y"].tolist() == [*range(0, 30, 3)]
    assert found["none"].shape == (0, 3)
    with pytest.raises(EOFError):
        read_whole(BufferedReader(BytesIO(content[:-8])), shared)


def test_parts_of_an_array_in_shared_memory_are_handed_over_as_places() -> None:
    written, shared = BytesIO(), Shared()
    rows = shared.empty((100_000, 3))
    rows[:] = np.arange(300_000.0).reshape(-1, 3)
    write_whole({"x": rows[1000:], "v": rows[:1000], "y": rows[:5, 0]}, written, shared)
    assert len(written.getvalue()) < 2000
    found = read_whole(BufferedReader(BytesIO(written.getvalue())), shared)
    shared.close()
    assert np.array_equal(found["x"], rows[1000:])
    assert np.array_equal(found["v"], rows[:1000])
    assert found["y"].tolist() == [0, 3, 6, 9, 12]
    found["x"][0] = -1
    assert rows[1000, 0] == 3000, "what one process writes is its own"


def test_a_fork_hands_over_what_it_returns_and_is_gone() -> None:
    def work(shared: Shared) -> tuple[Any, int]:
        rows = shared.empty((1_000_000, 5))
        rows[:] = np.arange(5_000_000.0).reshape(-1, 5)
        return rows[10:], os.getpid()

    rows, pid = done_in_a_fork(work)
    assert rows.sum() == 5_000_000 * 4_999_999 / 2 - sum(range(50))
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_a_table_without_rows_is_handed_over() -> None:
    assert done_in_a_fork(lambda shared: shared.empty((0, 5))).shape == (0, 5)


def test_a_fork_that_fails_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EOFError):
        done_in_a_fork(lambda _: 1 // 0)
    assert "ZeroDivisionError" in capfd.readouterr().err
