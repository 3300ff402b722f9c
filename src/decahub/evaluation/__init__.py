"""Model + processor + dataset + metric -> scores, and the file that keeps them."""

from .driver import check_label_names, evaluate_model, evaluation_mode, measure_model, select_fit_rows
from .folder import evaluate_folder
from .nodes import evaluate_nodes, measure_nodes
from .record import (
    EVALUATION_FILE,
    build_evaluation,
    read_evaluation,
    write_comparison,
    write_evaluation,
    write_json,
)
from .tasks import TASKS, EvaluationTask, Measurement


__all__ = [
    "EVALUATION_FILE",
    "TASKS",
    "EvaluationTask",
    "Measurement",
    "build_evaluation",
    "check_label_names",
    "evaluate_folder",
    "evaluate_model",
    "evaluate_nodes",
    "evaluation_mode",
    "measure_model",
    "measure_nodes",
    "read_evaluation",
    "select_fit_rows",
    "write_comparison",
    "write_evaluation",
    "write_json",
]
