"""What a fork hands back to the process that it was made of."""

from __future__ import annotations

import os
from io import BufferedReader, BytesIO

import numpy as np
import pytest

from tasks.federation.flower.forks import done_in_a_fork, read_whole, write_whole


def test_arrays_are_written_from_their_places_and_come_whole() -> None:
    rows = np.arange(300_000.0).reshape(-1, 3)
    written = BytesIO()
    # A part of a table is a view of all of it.
    write_whole({"x": rows[1000:], "y": rows[:10, 0].astype("f4"), "none": rows[:0]}, written)
    content = written.getvalue()
    assert len(content) < rows[1000:].nbytes + 1000, "an array was copied into the text"
    found = read_whole(BufferedReader(BytesIO(content)))
    assert np.array_equal(found["x"], rows[1000:])
    assert found["x"].dtype == np.float64
    assert found["y"].tolist() == [*range(0, 30, 3)]
    assert found["none"].shape == (0, 3)
    with pytest.raises(EOFError):
        read_whole(BufferedReader(BytesIO(content[:-8])))


def test_a_fork_hands_over_what_it_returns_and_is_gone() -> None:
    rows, pid = done_in_a_fork(lambda: (np.arange(5_000_000.0), os.getpid()))
    assert rows.sum() == 5_000_000 * 4_999_999 / 2
    assert rows.flags.writeable
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_a_fork_that_fails_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EOFError):
        done_in_a_fork(lambda: 1 // 0)
    assert "ZeroDivisionError" in capfd.readouterr().err
