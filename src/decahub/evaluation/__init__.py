"""Model + processor + dataset + task -> measurement, and the file that keeps it."""

from .driver import evaluate_model
from .folder import evaluate_folder
from .record import (
    EVALUATION_FILE,
    build_evaluation,
    read_evaluation,
    write_comparison,
    write_evaluation,
    write_json,
)


__all__ = [
    "EVALUATION_FILE",
    "build_evaluation",
    "evaluate_folder",
    "evaluate_model",
    "read_evaluation",
    "write_comparison",
    "write_evaluation",
    "write_json",
]
