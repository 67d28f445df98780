"""All that the server knows after a round, and the bookkeeping that leads there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tasks.federation.server.selection import HospitalHistory
from tasks.federation.server.transport import Replies
from tasks.federation.update.stage import State, Total
from tasks.federation.wire import Floats
from tasks.model.scaling import Scaler

Losses = Mapping[str, tuple[float, float]]
"""Validation loss times rows, and rows, by hospital; by all names together where only the sum of
theirs is known, so that two rounds compare only if the same hospitals answered."""


@dataclass(frozen=True)
class ServerState:
    """What the checkpoint holds.

    Attributes:
        round: Rounds done.
        model: Parameters after that round, shape (p,).
        scaler: The federation's standardisation.
        best_model: Parameters with the best validation loss so far.
        best_round: After how many rounds they were reached.
        losses: Of the model that each round started from.
        better: Of each round, whether that was better than all before; None where none compares.
        history: What is known of the hospitals.
        strategy: The strategy's arrays (sum of control variates, moments).
        bytes_up: Payload from the hospitals so far.
        bytes_down: Payload to the hospitals so far.
        participation: Rounds in which an answer counted, by hospital.
        lost: Rounds in which a selected hospital's answer did not count, by hospital.
        stopped: Why training has ended; empty before.
        result: Once chosen: the place of the result among the candidates, and the variance between
            the hospitals' intercepts.
    """

    round: int
    model: Floats
    scaler: Scaler
    best_model: Floats
    best_round: int = 0
    losses: list[Losses] = field(default_factory=list)
    better: list[bool | None] = field(default_factory=list)
    history: HospitalHistory = field(default_factory=HospitalHistory)
    strategy: State = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    participation: dict[str, int] = field(default_factory=dict)
    lost: dict[str, list[int]] = field(default_factory=dict)
    stopped: str = ""
    result: tuple[int, float] | None = None

    def received(self, replies: Replies) -> ServerState:
        """What is known after a question outside of rounds."""
        return replace(
            self,
            bytes_up=self.bytes_up + replies.bytes_up,
            bytes_down=self.bytes_down + replies.bytes_down,
        )

    def joined(self, hospitals: list[str]) -> ServerState:
        """What is known when hospitals have given their statistics."""
        seen = sorted({*self.history.seen, *hospitals})
        return replace(self, history=replace(self.history, seen=seen))

    def record_round(
        self, total: Total, replies: Replies, model: Floats, strategy: State, min_delta: float
    ) -> ServerState:
        """What is known after one more round.

        Args:
            total: The opened sum of the round.
            replies: What came back; hospitals without a sound answer are among the failed.
            model: The next model.
            strategy: The strategy's arrays.
            min_delta: How much lower a loss must be to count as better.
        """
        number, history = self.round + 1, self.history
        losses = _losses(total)
        better = self._is_better(losses, min_delta)
        means = {name: loss / rows for name, (loss, rows) in losses.items()}
        participation = dict(self.participation)
        for name in total.hospitals:
            participation[name] = participation.get(name, 0) + 1
        after = replace(
            self.received(replies),
            round=number,
            model=model,
            strategy=strategy,
            losses=[*self.losses, losses],
            better=[*self.better, better],
            history=replace(
                history,
                last_round={**history.last_round, **dict.fromkeys(total.hospitals, number)},
                last_loss={**history.last_loss, **means},
            ),
            participation=participation,
            lost={
                **self.lost,
                **{n: [*self.lost.get(n, []), number] for n in sorted(replies.failed)},
            },
        )
        return replace(after, best_round=number - 1, best_model=self.model) if better else after

    def _is_better(self, losses: Losses, min_delta: float) -> bool | None:
        """Whether the losses are better than the best round's, over the hospitals of both.

        Which hospitals answer moves a mean by more than a round does, so only those that both have
        in common are compared.
        """
        if True not in self.better:
            return True if losses else None
        best = self.losses[self.best_round]
        common = sorted(set(losses) & set(best))
        if not common:
            return None
        now, before = (
            sum(found[n][0] for n in common) / sum(found[n][1] for n in common)
            for found in (losses, best)
        )
        return now < before - min_delta


def _losses(total: Total) -> Losses:
    each = total.each or {",".join(total.hospitals): total.vector}
    found = {n: (v.number("validation_loss"), v.number("validation_rows")) for n, v in each.items()}
    return {name: pair for name, pair in sorted(found.items()) if pair[1]}
