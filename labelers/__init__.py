"""Labelers run a teacher over a dataset and bring back labels, rationales and probabilities."""

from __future__ import annotations

from labelers.answer_rules import AnswerRule, Equation, JsonField, Number, Pattern
from labelers.batches import OpenAIBatch
from labelers.budget import Budget
from labelers.calibrated_rows import CalibrationReport, calibrate
from labelers.calibrations import (
    BatchCalibration,
    CalibrationError,
    ContextualCalibration,
    IsotonicCalibration,
    TemperatureCalibration,
    brier,
    calibration_error,
)
from labelers.cascades import CascadeReport, merge_cascade, needs_dear, report_cascade
from labelers.columns import RowsError
from labelers.demonstration_writing import Written, write_demonstrations
from labelers.demonstrations import Demonstrations, RandomDemonstrations, SimilarDemonstrations
from labelers.ensembles import merge
from labelers.equations import equation_value, same_value
from labelers.generation import generate
from labelers.generation_agreement import Agreement, agreement
from labelers.generation_results import Generation, GenerationReport
from labelers.labeling import label
from labelers.limits import Limits
from labelers.llama_cpp import LlamaCpp
from labelers.openai_api import OpenAICompatible
from labelers.prices import known_prices
from labelers.privacy import PrivacyError, Redaction
from labelers.progress import Progress
from labelers.quotes import Quote, quote
from labelers.recorded import label_recorded
from labelers.store import Exchange, Store, StoreError
from labelers.tasks import Demonstration, Task, TaskError
from labelers.teachers import Fleet, Prices, RetryableError, RowError, Teacher, TeacherError
from labelers.vllm_engine import VLLM
from labelers.votes import Vote, VoteError, tally

__all__ = [
    "VLLM",
    "Agreement",
    "AnswerRule",
    "BatchCalibration",
    "Budget",
    "CalibrationError",
    "CalibrationReport",
    "CascadeReport",
    "ContextualCalibration",
    "Demonstration",
    "Demonstrations",
    "Equation",
    "Exchange",
    "Fleet",
    "Generation",
    "GenerationReport",
    "IsotonicCalibration",
    "JsonField",
    "Limits",
    "LlamaCpp",
    "Number",
    "OpenAIBatch",
    "OpenAICompatible",
    "Pattern",
    "Prices",
    "PrivacyError",
    "Progress",
    "Quote",
    "RandomDemonstrations",
    "Redaction",
    "RetryableError",
    "RowError",
    "RowsError",
    "SimilarDemonstrations",
    "Store",
    "StoreError",
    "Task",
    "TaskError",
    "Teacher",
    "TeacherError",
    "TemperatureCalibration",
    "Vote",
    "VoteError",
    "Written",
    "agreement",
    "brier",
    "calibrate",
    "calibration_error",
    "equation_value",
    "generate",
    "known_prices",
    "label",
    "label_recorded",
    "merge",
    "merge_cascade",
    "needs_dear",
    "quote",
    "report_cascade",
    "same_value",
    "tally",
    "write_demonstrations",
]
