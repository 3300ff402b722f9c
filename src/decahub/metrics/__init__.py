"""Metrics as `evaluate` modules: one folder `<name>/<name>.py` each, loaded from disk without a network.

A metric file follows the rules of `evaluate`'s own loader, which copies the file before it imports it: one import per
line, no import of decahub, helpers only as `from .file import name`.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from evaluate import EvaluationModule

_FOLDER = Path(__file__).parent


def list_metrics() -> list[str]:
    """Names that `load_metric` knows."""
    return sorted(path.stem for path in _FOLDER.glob("*/*.py") if path.stem == path.parent.name)


def load_metric(name: str, **kwargs: Any) -> "EvaluationModule":
    """Load one of decahub's metrics.

    Args:
        name (`str`): One of `list_metrics()`.
        kwargs: Passed to `evaluate.load`.

    Example:
    ```python
    >>> metric = load_metric("top_k_accuracy")
    >>> metric.compute(predictions=[[0.1, 0.9], [0.8, 0.2]], references=[1, 1], k=[1])
    {'accuracy': 0.5}
    ```
    """
    names = list_metrics()
    if name not in names:
        nearest = get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"`name` must be one of {', '.join(names)}; got {name!r}.{hint}")
    try:
        import evaluate
    except ImportError as error:
        raise ImportError('Metrics need the `evaluate` package: pip install "decahub[train]".') from error
    return evaluate.load(str(_FOLDER / name), **kwargs)


__all__ = ["list_metrics", "load_metric"]
