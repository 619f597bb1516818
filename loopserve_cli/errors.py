"""The errors a user sees: one line that says what to do, and an exit code."""

from __future__ import annotations


class LoopserveError(Exception):
    """Something the user can mend; `exit_code` is the process's status."""

    exit_code = 1


class UsageError(LoopserveError):
    """A wrong option, profile or setting."""

    exit_code = 2


class TranscriptError(LoopserveError):
    """A dialogue file that cannot be read; the message names file, line and field."""


class ModelError(LoopserveError):
    """A model that cannot be loaded."""


class NumbersError(LoopserveError):
    """A model that computed NaN or infinity, from which no token can be drawn."""


class ContextLimitError(LoopserveError):
    """A turn that does not fit into the model's context."""


class EndpointError(LoopserveError):
    """A server that does not answer, or otherwise than its interface says."""


def first_line(error: BaseException) -> str:
    """The first line of its message, for a table or a reason: other libraries' go on for pages."""
    return str(error).strip().partition("\n")[0]


def in_a_line(error: BaseException) -> str:
    """What was raised, by its kind and the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)}"
