"""When training ends."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.study.learning import Stop


def stop_reason(stop: Stop, better: Sequence[bool | None], number: int, rounds: int) -> str | None:
    """Why no further round should follow, or None.

    Args:
        stop: The study's choice.
        better: Of each round: whether the loss of the model that it started from was better than
            all before; None where none compares.
        number: Rounds done.
        rounds: Rounds at most.
    """
    if stop.patience is not None and waited(better) >= stop.patience:
        return f"validation loss no better for {stop.patience} rounds"
    if number >= rounds:
        return f"all {rounds} rounds are done"
    return None


def waited(better: Sequence[bool | None]) -> int:
    """Rounds since the validation loss last became better, without those that do not compare.

    Args:
        better: In the order of the rounds.
    """
    compared = [each for each in better if each is not None]
    return compared[::-1].index(True) if True in compared else len(compared)
