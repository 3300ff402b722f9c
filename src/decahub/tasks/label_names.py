"""Do the classes of a model and of a dataset agree?"""

from collections.abc import Sequence
from typing import Any


def check_label_names(model: Any, label_names: Sequence[str] | None) -> list[str]:
    """Names of the classes, after checking that the model's and the dataset's agree in number, names and order.

    A model without names of its own (`LABEL_0`, `LABEL_1`, ...) has only their number checked.

    Args:
        model (`PreTrainedModel`): Its `config.id2label` is read.
        label_names (`Sequence[str]`, *optional*): Of the dataset.

    Raises:
        ValueError: If they disagree.
    """
    config: Any = model.config
    num_labels = config.num_labels
    names = [config.id2label[index] for index in range(num_labels)]
    if label_names is None:
        return names
    if len(label_names) != num_labels:
        raise ValueError(
            f"`model` must have as many classes as the dataset, {len(label_names)}; got {num_labels}. "
            "Was it trained on another dataset?"
        )
    if names == [f"LABEL_{index}" for index in range(num_labels)]:
        return list(label_names)
    for index, (name, wanted) in enumerate(zip(names, label_names, strict=True)):
        if name != wanted:
            raise ValueError(
                f"`model.config.id2label` must name the dataset's classes in their order; class {index} is "
                f"{wanted!r} in the dataset, got {name!r}. Was the model trained on another dataset?"
            )
    return names


__all__ = ["check_label_names"]
