"""What can go wrong in this package, as exceptions whose messages say what to do next."""

from __future__ import annotations

__all__ = ["CheckpointError", "ExportError", "InputError", "StudentError", "TrainingError"]


class StudentError(Exception):
    """Every error this package raises on purpose."""


class InputError(StudentError, ValueError):
    """A value that was passed in cannot be used: a column, an option, a label."""


class CheckpointError(StudentError, RuntimeError):
    """A model folder cannot be loaded, or cannot be written."""


class TrainingError(StudentError, RuntimeError):
    """Training started and could not go on, for example because the loss became NaN."""


class ExportError(StudentError, RuntimeError):
    """An export answers otherwise than the student it was made from, and was refused."""
