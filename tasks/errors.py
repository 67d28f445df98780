"""The errors of fedrisk; the exit code of each determines what a caller does.

A message names the file, field, hospital or count, what was expected and what to do. It never
contains a value of a patient's row, because messages leave the hospital.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the caller of a step should do."""

    DONE = 0
    FAILED = 1
    """An internal error: a retry is harmless and seldom helps."""
    BAD_INPUT = 2
    """Bad data, study or command: do not retry."""
    REFUSED = 3
    """A gate failed or a hospital has not approved the study: do not retry."""
    TRANSIENT = 4
    """A hospital or service was unavailable: retry."""


class FedriskError(Exception):
    """Base of all errors that fedrisk raises on purpose."""

    exit_code = ExitCode.FAILED


class StudyError(FedriskError):
    """A study file, an override or a combination of settings is not valid."""

    exit_code = ExitCode.BAD_INPUT


class DataError(FedriskError):
    """A hospital's source, table or column is not what the study says."""

    exit_code = ExitCode.BAD_INPUT


class SettingsError(FedriskError):
    """An environment setting or a command's argument is wrong."""

    exit_code = ExitCode.BAD_INPUT


class FederationError(FedriskError):
    """Too few hospitals answered in time, or the federation could not start."""

    exit_code = ExitCode.TRANSIENT


class NotJoined(FedriskError):  # noqa: N818  (names the state)
    """A hospital does not admit a run to its table yet: its step ``join`` has not ended."""

    exit_code = ExitCode.TRANSIENT


class NotApproved(FedriskError):  # noqa: N818  (names the state)
    """A hospital has not approved the run's study."""

    exit_code = ExitCode.REFUSED


class GateFailed(FedriskError):  # noqa: N818  (the project's term)
    """A model did not meet a condition for promotion."""

    exit_code = ExitCode.REFUSED


class StoreUnavailable(FedriskError):  # noqa: N818  (names the state)
    """The store did not answer in time: retry."""

    exit_code = ExitCode.TRANSIENT
