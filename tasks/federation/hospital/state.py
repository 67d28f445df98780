"""What a hospital remembers of a run, in its own lake: each answer, and its state after it.

One object a question and round, written whole or not at all: the digest of the task, the answer,
and the state that the strategy and the pipeline's stages go on from. It survives the process that
answered, and its pod; it never lies in the store that the parties share.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.errors import DataError
from tasks.federation.messages import Question
from tasks.federation.update.stage import State
from tasks.federation.wire import Wire
from tasks.objects import get, keys, put, remove


@dataclass(frozen=True)
class Remembered:
    """One answer.

    Attributes:
        task: The task's digest.
        scaler: The digest of the run's scaling; empty before the first round.
        answer: What was sent.
        state: What the hospital goes on from if this answer counts.
    """

    task: str
    scaler: str
    answer: Wire
    state: State

    def to_bytes(self) -> bytes:
        """The object's content."""
        plain = {k: v for k, v in self.answer.items() if not isinstance(v, bytes)}
        arrays: State = {
            f"answer/{k}": np.frombuffer(v, dtype=np.uint8)
            for k, v in self.answer.items()
            if isinstance(v, bytes)
        }
        arrays |= {f"state/{name}": array for name, array in self.state.items()}
        about = json.dumps({"task": self.task, "scaler": self.scaler, "plain": plain}).encode()
        buffer = io.BytesIO()
        np.savez(buffer, about=np.frombuffer(about, dtype=np.uint8), **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Remembered:
        """Read what ``to_bytes`` made."""
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            about: dict[str, Any] = json.loads(file["about"].tobytes())
            answer: Wire = {
                # In the order in which it was sent, so that the same bytes leave again.
                name.removeprefix("answer/"): file[name].tobytes()
                for name in file.files
                if name.startswith("answer/")
            }
            state = {
                name.removeprefix("state/"): file[name]
                for name in file.files
                if name.startswith("state/")
            }
        return cls(about["task"], about["scaler"], answer | about["plain"], state)


class HospitalState:
    """The answers that one hospital has given in one run."""

    def __init__(self, lake: str, folder: str) -> None:
        """Say where they lie.

        Args:
            lake: URL of the hospital's own lake.
            folder: The folder there, of this run and its tables alone.
        """
        self._lake, self._folder = lake, folder

    def find(self, question: Question, number: int) -> Remembered | None:
        """The answer to a question, if it has been given.

        Args:
            question: The question.
            number: The round; 0 outside of rounds.
        """
        content = get(self._lake, self._key(question, number))
        return None if content is None else Remembered.from_bytes(content)

    def rounds(self) -> list[int]:
        """Rounds that are remembered, in order."""
        found = keys(self._lake, f"{self._folder}/{Question.TRAIN.value}")
        return sorted(int(key.rpartition("/")[2].split(".")[0]) for key in found)

    def after(self, number: int) -> State:
        """What the hospital goes on from after a round.

        Args:
            number: The last round in which its answer counted; 0 for none.

        Raises:
            DataError: It has not answered that round.
        """
        if number == 0:
            return {}
        found = self.find(Question.TRAIN, number)
        if found is None:
            raise DataError(f"the server counts an answer to round {number}, which was not given.")
        return found.state

    def keep(self, question: Question, number: int, answer: Remembered) -> None:
        """Remember an answer, before it is sent.

        Args:
            question: The question.
            number: The round; 0 outside of rounds.
            answer: The answer.
        """
        put(self._lake, self._key(question, number), answer.to_bytes())

    def forget(self, rounds: list[int]) -> None:
        """Delete the answers to rounds that are of no more use."""
        for number in rounds:
            remove(self._lake, self._key(Question.TRAIN, number))

    def _key(self, question: Question, number: int) -> str:
        return f"{self._folder}/{question.value}/{number:06d}.npz"
