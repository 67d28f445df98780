"""Two results are compared number by number, and nothing is taken for the same that is not."""

from __future__ import annotations

import math

import pytest

from smoke.compare import differences, numbers


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"auroc": 0.5}, {"auroc": 0.5}, []),
        ({"auroc": 0.5}, {"auroc": 0.75}, [("auroc", 0.25)]),
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.5]}, [("a[1]", 0.5)]),
        ({"seconds": 1.0, "a": 1}, {"seconds": 9.0, "a": 1}, []),
        ({"a": 1}, {"a": 2}, [("a", math.inf)]),
        ({"a": 1.0}, {}, [("a", math.inf)]),
        ({"a": [1.0]}, {"a": [1.0, 2.0]}, [("a", math.inf)]),
        ({"a": "x"}, {"a": "y"}, [("a", math.inf)]),
        ({"a": {"b": None}}, {"a": {"b": 0.0}}, [("a.b", math.inf)]),
    ],
)
def test_differences_are_found_where_they_are(
    one: object, other: object, expected: list[tuple[str, float]]
) -> None:
    assert list(differences(one, other)) == expected


def test_numbers_are_counted_without_times_and_flags() -> None:
    assert numbers({"a": [1, 2.0, True, "x"], "b": {"c": 3}, "seconds": 4.0}) == 3
