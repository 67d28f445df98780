"""A kit lets its hospital join a real standing SuperLink without a restart."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smoke.waits import until
from tasks.federation.deployment.local import free_ports
from tasks.onboarding.checks.superlink import check_superlink
from tasks.onboarding.keys import unregister
from tests.onboarding.conftest import Consortium

pytestmark = pytest.mark.slow
DEADLINE = 400.0
"""Seconds, enough for a machine under load."""
IN, AGAIN = "has joined", "it is started again"
"""The logs of a SuperNode that is admitted, and of one that is restarted."""


@contextlib.contextmanager
def started(root: Path, name: str, role: list[str], variables: dict[str, str]) -> Iterator[Path]:
    """A standing SuperLink or SuperNode; yields its log."""
    log, home = root / f"{name}.log", root / f"home-{name}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FEDRISK_")}
    environment |= {"FEDRISK_HOME": str(home), **variables}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.federation.standing", *role],
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield log
    finally:
        process.terminate()
        try:
            process.wait(400)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def wait_for(log: Path, words: str) -> None:
    until(f"{log} says {words!r}", lambda: words in log.read_text(errors="replace"), DEADLINE)


def registration(address: str, kit: Path) -> str:
    found = {each.name: each for each in check_superlink(address, kit)}
    assert found["certificate"].state == found["clock"].state == "ok"
    return f"{found['registration'].state}: {found['registration'].found}"


def test_a_kit_lets_its_hospital_join_and_an_unregistered_key_is_reported(
    consortium: Consortium, tmp_path: Path
) -> None:
    address = f"localhost:{free_ports(1)[0]}"
    consortium.registered.mkdir()
    (tmp_path / "store").mkdir()
    superlink = {
        "FEDRISK_IDENTITY": str(consortium.federation),
        "FEDRISK_REGISTERED": str(consortium.registered),
        "FEDRISK_STORE": f"file://{tmp_path / 'store'}",
        "FEDRISK_SUPERLINK": address,
        "FEDRISK_FEDERATION": "standing",
    }
    with started(tmp_path, "superlink", ["superlink"], superlink) as log:
        wait_for(log, "the SuperLink listens")
        kit = consortium.add("north", superlink=address)
        wait_for(log, "registered north")
        assert registration(address, kit).startswith("ok: the SuperLink knows")

        stranger = consortium.add("stranger", superlink=address, registered=tmp_path / "elsewhere")
        assert registration(address, stranger).startswith("missing: the SuperLink does not know")

        variables = dict(
            line.split("=", 1) for line in (kit / "hospital.env").read_text().splitlines()
        )
        variables["FEDRISK_IDENTITY"] = str(kit)
        variables["FEDRISK_LAKE"] = f"file://{tmp_path / 'lake'}"
        # One that has taken leave is none that Flower takes for alive for a minute, in which it
        # would turn the next one away.
        for _ in range(2):
            node = started(tmp_path, "north", ["supernode", "--hospital", "north"], variables)
            with node as own:
                wait_for(own, IN)
                # The check does not affect the running SuperNode.
                assert registration(address, kit).startswith("ok")
                assert AGAIN not in own.read_text()

        unregister(consortium.registered, "north")
        wait_for(log, "unregistered north")
        assert registration(address, kit).startswith("missing")
