"""The store's script: its watcher goes on while what it watches is being replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smoke.command import ROOT

WEED = """\
#!/bin/sh
# Its shell knows one bucket; its server stays.
if [ "$1" = shell ]; then cat >/dev/null; echo "fedrisk-runs size:0"; exit; fi
exec sleep 60
"""


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """The script at work in a folder of its own, and a way to read what it has said."""
    text = (ROOT / "helm" / "fedrisk" / "files" / "s3.sh").read_text()
    for old, new in {
        "/etc/seaweedfs": str(tmp_path / "given"),
        "/tmp/buckets": str(tmp_path / "ready"),
        "kill -HUP 1": "echo told",
        "sleep 5": "sleep 0.1",
        "sleep 1": "sleep 0.1",
    }.items():
        assert old in text
        text = text.replace(old, new)
    for name, content in (("identities/s3.json", "{}"), ("buckets/buckets", "fedrisk-runs\n")):
        (tmp_path / "given" / name).parent.mkdir(parents=True)
        (tmp_path / "given" / name).write_text(content)
    program = tmp_path / "bin" / "weed"
    program.parent.mkdir()
    program.write_text(WEED)
    program.chmod(0o755)
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            ["sh", "-c", text],
            env={"PATH": f"{program.parent}:{os.environ['PATH']}", "VOLUME_SIZE_LIMIT_MB": "64"},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield (tmp_path / "said").read_text
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(400)


def until(look: Callable[[], bool]) -> bool:
    end = time.monotonic() + 400
    while not look() and time.monotonic() < end:
        time.sleep(0.05)
    return look()


def test_identities_that_are_away_for_a_moment_do_not_end_the_watch(
    script: Callable[[], str], tmp_path: Path
) -> None:
    assert until((tmp_path / "ready").exists)
    identities = tmp_path / "given" / "identities" / "s3.json"
    identities.unlink()
    assert until(lambda: "s3.json" in script()), "it has looked while they were away"
    identities.write_text('{"identities": []}')
    assert until(lambda: "told" in script())


def test_buckets_that_are_away_for_a_moment_do_not_end_the_watch(
    script: Callable[[], str], tmp_path: Path
) -> None:
    assert until((tmp_path / "ready").exists)
    buckets = tmp_path / "given" / "buckets" / "buckets"
    buckets.unlink()
    assert until(lambda: "buckets/buckets" in script())
    (tmp_path / "given" / "identities" / "s3.json").write_text('{"identities": []}')
    buckets.write_text("fedrisk-runs\n")
    assert until(lambda: "told" in script())
