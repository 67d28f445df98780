"""A reader finds the eleven steps of a round in docs/architecture.md, and they are what happens."""

from __future__ import annotations

import re
import sys
from operator import attrgetter
from pathlib import Path
from types import FrameType
from typing import Any

from direct_transport import DirectTransport, config_of
from small_federation import small_study

from tasks.federation.server.training import train_federated

ROW = re.compile(r"\| (\d+) \| [^|]+ \| `([\w.]+):([\w.]+)` \|")


def test_the_steps_of_a_round_are_those_that_the_architecture_names(
    checkout: Path, tmp_path: Path
) -> None:
    rows = ROW.findall((checkout / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert [int(number) for number, *_ in rows] == list(range(1, 12))
    steps = {}
    for number, module, name in rows:
        __import__(module)
        steps[attrgetter(name)(sys.modules[module]).__code__] = int(number)
    ended: list[int] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        number = steps.get(frame.f_code) if event == "return" else None
        # Statistics pass the pipeline too, before the first round chooses its hospitals.
        if number and (ended or number == 1) and number not in ended:
            ended.append(number)

    study = small_study(strategy="fedavg", rounds=1)
    sys.setprofile(note)
    try:
        train_federated(config_of(study), DirectTransport(study), tmp_path)
    finally:
        sys.setprofile(None)
    assert ended == list(range(1, 12))
