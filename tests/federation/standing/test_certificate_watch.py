"""When a SuperLink is to be started anew with another certificate, and when not yet."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.federation.deployment.certificates import Certificates, make_certificates
from tasks.federation.standing.certificate_watch import CERTIFICATE_POLL, CertificateWatch


@pytest.fixture
def mounted(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "mounted")


@pytest.fixture
def renewed(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "renewed")


@pytest.fixture
def look(mounted: Certificates) -> Callable[[], bool]:
    now = [0.0]
    watcher = CertificateWatch(mounted, lambda: now[0])

    def later() -> bool:
        now[0] += CERTIFICATE_POLL
        return watcher.look()

    return later


def test_files_that_stay_are_no_renewal(look: Callable[[], bool], mounted: Certificates) -> None:
    assert not look()
    content = mounted.certificate.read_bytes()
    mounted.certificate.unlink()
    mounted.certificate.write_bytes(content)  # another file, and the same certificate
    assert not look()


def test_a_whole_new_pair_is(
    look: Callable[[], bool], mounted: Certificates, renewed: Certificates
) -> None:
    shutil.copy(renewed.certificate, mounted.certificate)
    assert not look()  # the old key does not belong to it
    shutil.copy(renewed.key, mounted.key)
    assert look()


def test_a_new_certificate_for_the_same_key_is(
    look: Callable[[], bool], mounted: Certificates
) -> None:
    mounted.certificate.write_bytes(mounted.certificate.read_bytes() + b"\n")
    assert look()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_half_written_file_is_none_yet(
    part: float, look: Callable[[], bool], mounted: Certificates, renewed: Certificates
) -> None:
    shutil.copy(renewed.key, mounted.key)
    content = renewed.certificate.read_bytes()
    mounted.certificate.write_bytes(content[: int(part * len(content))])
    assert not look()
    mounted.certificate.unlink()
    assert not look()
    mounted.certificate.write_bytes(content)
    assert look()


def test_it_looks_only_every_few_seconds(mounted: Certificates, renewed: Certificates) -> None:
    now = [0.0]
    watcher = CertificateWatch(mounted, lambda: now[0])
    for name in ("authority", "certificate", "key"):
        shutil.copy(getattr(renewed, name), getattr(mounted, name))
    now[0] = CERTIFICATE_POLL / 2
    assert not watcher.look()
    now[0] = CERTIFICATE_POLL
    assert watcher.look()
