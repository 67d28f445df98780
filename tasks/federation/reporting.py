"""What the step ``federated`` reports of a federation: its rounds, and how it failed."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.errors import FedriskError
from tasks.telemetry.live import RoundSink
from tasks.telemetry.round_event import RoundEvent, read_events


def report_rounds(path: Path, reported: int, sink: RoundSink | None) -> int:
    """Print and pass on the rounds that are new.

    Args:
        path: File of the rounds' events.
        reported: The last round that was reported.
        sink: Gets each new round; None to report nothing.

    Returns:
        The last round that is reported now.
    """
    for event in read_events(path):
        if event.round > reported:
            reported = event.round
            if sink is not None:
                print(round_line(event), flush=True)
                sink.log_round(event)
    return reported


def round_line(event: RoundEvent) -> str:
    """One line about a round, for the log.

    Args:
        event: The round.
    """

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    note = f"; {event.note}" if event.note else ""
    return (
        f"round {event.round}/{event.rounds}: validation loss {number(event.validation_loss)}, "
        f"AUROC {number(event.validation_auroc)}, {len(event.replied)} of {len(event.selected)} "
        f"hospitals, {event.seconds:.1f} s{note}"
    )


def failure_of(content: bytes, log: str) -> FedriskError:
    """The error that a ServerApp left in a file.

    Args:
        content: The file's.
        log: What to say of the log, for an error that is not one of ours.
    """
    failure = json.loads(content)
    kind = _kinds(FedriskError).get(failure["kind"])
    if kind is not None:
        return kind(failure["message"])
    return FedriskError(f"{failure['message']}; {log}")


def _kinds(base: type[FedriskError]) -> dict[str, type[FedriskError]]:
    """Our errors by name, wherever they are defined: a store that is away is one of them."""
    found = {base.__name__: base}
    for each in base.__subclasses__():
        found |= _kinds(each)
    return found
