"""The stages of a study in their order: forward at the hospital, backward at the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from tasks.errors import StudyError
from tasks.federation.update.stage import About, Stage, State, Total
from tasks.federation.vector import Vector
from tasks.study import Federation


class Pipeline:
    """What happens between ``train`` at a hospital and the strategy's step at the server."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Hold the stages.

        Args:
            stages: In the order in which a hospital's vector passes them.
        """
        self._stages = list(stages)

    @property
    def protects(self) -> bool:
        """Whether single hospitals' vectors stay hidden from the server."""
        return any(stage.protects for stage in self._stages)

    def check(self, federation: Federation, needs_each: bool) -> None:
        """See that the study asks for nothing that its stages hide.

        Args:
            federation: The study's.
            needs_each: Whether its strategy compares single updates.

        Raises:
            StudyError: It does.
        """
        unsound = {
            f"strategy: {federation.strategy} compares single updates": needs_each,
            "selection.kind: loss needs each hospital's loss": federation.selection.kind == "loss",
            "weighting.kind: capped weighs each update": federation.weighting.kind == "capped",
        }
        reasons = [reason for reason, holds in unsound.items() if holds]
        if self.protects and reasons:
            raise StudyError(
                f"federation.{reasons[0]}, and the study has them summed before anybody sees one. "
                "Choose another, or leave the protection out."
            )

    def send(self, vector: Vector, about: About) -> Vector:
        """All stages forward, at the hospital.

        Args:
            vector: The answer.
            about: What it answers.
        """
        return reduce(lambda found, stage: stage.send(found, about), self._stages, vector)

    def receive(self, answers: Mapping[str, Vector], about: About) -> Total:
        """Add the answers up and open the sum, at the server: all stages backward.

        Sums are taken in float64 in the order of the hospitals' names: the same bits in
        whatever order they came.

        Args:
            answers: By hospital, at least one.
            about: What they answer.
        """
        names = tuple(sorted(answers))
        vector = reduce(Vector.__add__, (answers[name] for name in names))
        total = Total(vector, names, None if self.protects else dict(answers))
        return reduce(lambda found, stage: stage.receive(found, about), self._stages[::-1], total)

    def state(self) -> State:
        """The hospital's ends' arrays, by the stage's place and their name."""
        return {
            f"{place}/{name}": array
            for place, stage in enumerate(self._stages)
            for name, array in stage.state().items()
        }

    def restore(self, state: State) -> None:
        """Take up what ``state`` gave.

        Args:
            state: By the stage's place and the array's name; empty to start from nothing.
        """
        for place, stage in enumerate(self._stages):
            own = f"{place}/"
            stage.restore({n.removeprefix(own): a for n, a in state.items() if n.startswith(own)})


def pipeline_of(federation: Federation, needs_each: bool) -> Pipeline:
    """The pipeline that a study asks for.

    Args:
        federation: The study's.
        needs_each: Whether its strategy compares single updates.

    Raises:
        StudyError: The study asks for something that its stages hide.
    """
    pipeline = Pipeline([])
    pipeline.check(federation, needs_each)
    return pipeline
