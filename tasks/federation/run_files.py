"""Names of the files of a federated run, in the step's folder and in its private folder."""

from __future__ import annotations

CHECKPOINT, ROUNDS = "checkpoint.npz", "rounds.jsonl"
PROGRESS = (CHECKPOINT, ROUNDS)
"""What a run leaves for the next attempt: the second is of no use without the first."""
MODEL = "model.safetensors"
PRIVATE = "private"
"""Folder of keys and configurations, deleted with the federation."""
OUTCOME, FAILURE, GONE, SERVER = "outcome.json", "failure.json", "gone.json", "server.json"
"""In the private folder: how the server ended, whose process has ended, the server's configuration.
"""
STORED = "stored"
"""In the private folder: which checkpoint is in the store, by its modification time."""
