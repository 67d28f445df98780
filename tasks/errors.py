"""The errors of fedrisk, each with the exit code that tells a caller what to do.

A message names the file, field, hospital or count, what was expected and what to do. It never
carries a value of a patient's row, for messages leave the hospital.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the caller of a step should do."""

    DONE = 0
    FAILED = 1
    """An error of the program itself: retry is harmless and seldom helps."""
    BAD_INPUT = 2
    """Bad data, study or command: do not retry."""
    REFUSED = 3
    """A privacy budget is exhausted or a gate failed: do not retry."""
    TRANSIENT = 4
    """A hospital or service was not there: retry."""


class FedriskError(Exception):
    """Base of all errors that fedrisk raises on purpose."""

    exit_code = ExitCode.FAILED


class StudyError(FedriskError):
    """A study file, an override or a combination of settings is not sound."""

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


class NotJoined(FedriskError):  # noqa: N818  (it says what is the matter)
    """A hospital has not let a run use its table yet: its step ``join`` is still to end."""

    exit_code = ExitCode.TRANSIENT


class NotApproved(FedriskError):  # noqa: N818  (it says what is the matter)
    """A hospital has not approved the study that a run is of."""

    exit_code = ExitCode.REFUSED


class BudgetExhausted(FedriskError):  # noqa: N818  (the project's word)
    """A hospital's ledger does not allow the spending."""

    exit_code = ExitCode.REFUSED


class GateFailed(FedriskError):  # noqa: N818  (the project's word)
    """A model did not meet a condition for promotion."""

    exit_code = ExitCode.REFUSED


class StoreUnavailable(FedriskError):  # noqa: N818  (it says what is the matter)
    """The store did not answer in time: retry."""

    exit_code = ExitCode.TRANSIENT
