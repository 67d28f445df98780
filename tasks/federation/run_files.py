"""Names of the files of a federated run, in the step's folder and in its private folder."""

from __future__ import annotations

OUTCOME, FAILURE, GONE, SERVER = "outcome.json", "failure.json", "gone.json", "server.json"


CHECKPOINT, ROUNDS = "checkpoint.npz", "rounds.jsonl"


PROGRESS = (CHECKPOINT, ROUNDS)
"""What a run leaves for the next attempt: the second is of no use without the first."""


MODEL = "model.safetensors"
