"""Tasks: what is predicted, measured and shown. One row in `decahub.registry.TASKS` and one module each."""

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from decahub.lazy import attach
from decahub.registry import METHODS, TASKS


if TYPE_CHECKING:
    from .loading import load_model, load_processor
    from .measurement import Measurement, MeasurementContext, Report, Scores
    from .node_classification import evaluate_nodes, evaluate_parts, join_scores
    from .task import Task

__getattr__, __dir__ = attach(__name__, __file__)


@cache
def get_task(name: str) -> "Task":
    """A task by its name; a `ValueError` names the nearest where there is none."""
    if name not in TASKS:
        nearest = get_close_matches(str(name), TASKS, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}; got {name!r}.{hint}")
    entry = TASKS[name]
    module = import_module(f"{__name__}.{entry.module}")
    return getattr(module, entry.module.title().replace("_", ""))(entry)


def find_task(architecture: str) -> "Task":
    """The task of a model class: the first one of its method that loads models with the class's Auto class."""
    for method in METHODS.values():
        for entry in method.models:
            auto_classes = [auto for auto, name in entry.auto_classes.items() if name == architecture]
            for name in method.tasks:
                if auto_classes and name in TASKS and TASKS[name].auto_class in auto_classes:
                    return get_task(name)
    classes = sorted({task.auto_class for task in TASKS.values()})
    raise ValueError(
        f"`model` must be loaded by one of {', '.join(classes)}; {architecture} is not. Use it from Python."
    )


__all__ = [
    "Measurement",
    "MeasurementContext",
    "Report",
    "Scores",
    "Task",
    "evaluate_nodes",
    "evaluate_parts",
    "find_task",
    "get_task",
    "join_scores",
    "load_model",
    "load_processor",
]
