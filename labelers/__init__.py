"""Labelers run a teacher over a dataset and bring back labels, rationales and probabilities."""

from __future__ import annotations

from labelers.asking import Progress
from labelers.labeling import label
from labelers.limits import Limits
from labelers.llama_cpp import LlamaCpp
from labelers.openai_api import OpenAICompatible
from labelers.probabilities import BatchCalibration
from labelers.recorded import label_recorded
from labelers.store import Store, StoreError
from labelers.tasks import Demonstration, Task, TaskError
from labelers.teachers import Prices, RetryableError, RowError, Teacher, TeacherError

__all__ = [
    "BatchCalibration",
    "Demonstration",
    "Limits",
    "LlamaCpp",
    "OpenAICompatible",
    "Prices",
    "Progress",
    "RetryableError",
    "RowError",
    "Store",
    "StoreError",
    "Task",
    "TaskError",
    "Teacher",
    "TeacherError",
    "label",
    "label_recorded",
]
