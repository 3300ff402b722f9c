"""Model + processor + data set + metric -> figures, and the file that keeps them."""

from .driver import check_label_names, evaluate_model, evaluation_mode
from .folder import evaluate_folder
from .record import EVALUATION_FILE, build_evaluation, read_evaluation, write_evaluation
from .tasks import TASKS, EvaluationTask


__all__ = [
    "EVALUATION_FILE",
    "TASKS",
    "EvaluationTask",
    "build_evaluation",
    "check_label_names",
    "evaluate_folder",
    "evaluate_model",
    "evaluation_mode",
    "read_evaluation",
    "write_evaluation",
]
