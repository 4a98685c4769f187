"""The errors that the command line turns into a message and exit code 2."""

from __future__ import annotations


class CurateError(ValueError):
    """Bad input: the message states the value, what was allowed, and what to do next."""


class RecipeError(CurateError):
    """A recipe that cannot be run as it is written: every finding, one to a line."""
