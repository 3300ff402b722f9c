"""Model + processor + dataset + task -> measurement, and the file that keeps it.

Names resolve lazily: the file can be read without torch.
"""

from typing import TYPE_CHECKING

from decahub.lazy import attach


if TYPE_CHECKING:
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

_HOMES = {
    "EVALUATION_FILE": "record",
    "build_evaluation": "record",
    "evaluate_folder": "folder",
    "evaluate_model": "driver",
    "read_evaluation": "record",
    "write_comparison": "record",
    "write_evaluation": "record",
    "write_json": "record",
}

__getattr__, __dir__ = attach(__name__, _HOMES)


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
