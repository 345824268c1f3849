"""Errors that a user can repair: one line each, with the value, the rule and the remedy.

The command line prints them without a traceback and exits with code 2.
"""

import difflib
from collections.abc import Iterable


class FastganError(Exception):
    """Base of every error that the user, not the code, has to repair."""

    exit_code = 2


class ConfigError(FastganError):
    """A key or a value of the configuration is not valid."""


class DataError(FastganError):
    """The images or labels cannot be used."""


class RunFolderError(FastganError):
    """The run folder cannot be written, or holds another run."""


class CheckpointError(FastganError):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


class TrainingError(FastganError):
    """Training cannot go on, e.g. a loss is not finite."""


class ImplementationError(FastganError):
    """The implementation of an op that was asked for cannot run here, or not on these arguments."""


class DistributedError(FastganError):
    """The processes of a run cannot work together, or one of them is lost."""


def nearest(value: object, choices: Iterable[str]) -> str | None:
    """The choice that `value`, as text, most resembles, or None when none is close."""
    matches = difflib.get_close_matches(str(value), list(choices), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """`, did you mean 'X'?` for the nearest choice, or an empty string."""
    match = nearest(value, choices)
    return f", did you mean {match!r}?" if match else ""
