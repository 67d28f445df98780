"""Compute profiles: quantities, what overrides do, and that results stay comparable."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tasks.errors import StudyError
from tasks.study import Study, read_study
from tasks.study.compute import FIGURES, PROFILES, ROLES, Compute, cores, size


def study(checkout: Path, *overrides: str) -> Study:
    return read_study(checkout / "dags" / "studies" / "stroke.yaml", overrides)


def test_quantities_are_read_as_kubernetes_reads_them() -> None:
    assert (cores("2"), cores("0.5"), cores("250m")) == (2, Decimal("0.5"), Decimal("0.25"))
    assert (size("4Gi"), size("512Mi"), size("2G")) == (4 * 2**30, 512 * 2**20, 2 * 10**9)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cpu", "0"), ("cpu", "-1"), ("cpu", "two"), ("cpu", "1.5m"), ("cpu", "1Gi"),
        ("memory", "4"), ("memory", "4096"), ("memory", "4GB"), ("memory", "lots"),
    ],
)  # fmt: skip
def test_an_invalid_quantity_is_refused_by_its_key(checkout: Path, key: str, value: str) -> None:
    with pytest.raises(StudyError, match=f"compute.data.limits.{key}"):
        study(checkout, f"compute.data.limits.{key}={value}")


def test_a_request_above_its_limit_is_refused(checkout: Path) -> None:
    with pytest.raises(StudyError, match=r"requests.cpu 3 is above limits.cpu 2"):
        study(checkout, "compute.server={requests: {cpu: 3}, limits: {cpu: 2}}")


def test_every_profile_is_complete() -> None:
    for profile in PROFILES:
        for role in ROLES:
            found = Compute().resources(role, profile)
            assert found.requests.cpu
            assert found.requests.memory
            assert found.limits.cpu
            assert found.limits.memory
    assert set(FIGURES) == set(PROFILES)


def test_an_override_stays_when_the_profile_is_replaced(checkout: Path) -> None:
    compute = study(checkout, "compute.training.limits.memory=9Gi").compute
    small = compute.resources("training", "small")
    assert (small.limits.memory, small.requests.memory) == ("9Gi", "512Mi")
    assert compute.resources("training").limits.cpu == "2"
    with pytest.raises(ValueError, match="small, standard, large"):
        compute.resources("training", "huge")


def test_a_lone_limit_lowers_the_request_and_a_lone_request_raises_the_limit(
    checkout: Path,
) -> None:
    low = study(checkout, "compute.data.limits.memory=300Mi").compute.resources("data")
    assert (low.requests.memory, low.limits.memory) == ("300Mi", "300Mi")
    high = study(checkout, "compute.data.requests.cpu=6").compute.resources("data")
    assert (high.requests.cpu, high.limits.cpu) == ("6", "6")


def test_compute_is_not_part_of_the_digest(checkout: Path) -> None:
    large = study(checkout, "compute.profile=large", "compute.place_within=30")
    assert large.compute.profile == "large"
    assert large.digest() == study(checkout).digest()
    assert study(checkout, "seed=7").digest() != study(checkout).digest()
