"""How each method is trained: a module a method, whose functions a notebook can call.

Each module has a dataclass `Arguments` and a function `run(arguments) -> Outcome`, beside one function for each step:
`build_processor`, `build_train_dataset`, `build_model`, `build_updates`, `measure` and so on.
`examples/<method>/train.py` calls them one by one, `decahub train` calls `run`.
"""

from pathlib import Path

from decahub.registry import METHODS


PROCEDURES = tuple(name for name in METHODS if (Path(__file__).parent / f"{name}.py").is_file())
"""Methods that can be trained."""

__all__ = ["PROCEDURES"]
