"""Model + processor + dataset + task -> measurement, and the file that keeps it.

Names resolve lazily: the file can be read without torch.
"""

from typing import TYPE_CHECKING

from decahub.lazy import attach


if TYPE_CHECKING:
    from .comparison import Comparison, build_row, read_comparison, run_once, write_comparison
    from .driver import evaluate_model
    from .folder import evaluate_folder
    from .record import EVALUATION_FILE, build_evaluation, read_evaluation, write_evaluation, write_json
    from .sensor_failures import (
        build_failure_report,
        build_sensor_failures,
        evaluate_sensor_failures,
        measure_sensor_failures,
    )

__getattr__, __dir__ = attach(__name__, __file__)

__all__ = [
    "EVALUATION_FILE",
    "Comparison",
    "build_evaluation",
    "build_failure_report",
    "build_row",
    "build_sensor_failures",
    "evaluate_folder",
    "evaluate_model",
    "evaluate_sensor_failures",
    "measure_sensor_failures",
    "read_comparison",
    "read_evaluation",
    "run_once",
    "write_comparison",
    "write_evaluation",
    "write_json",
]
