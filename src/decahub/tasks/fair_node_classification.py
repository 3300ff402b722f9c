"""Fair node classification: accuracy, and how differently the groups of a sensitive attribute are treated."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .measurement import Scores
from .node_classification import UNLABELED, NodeClassification


if TYPE_CHECKING:
    import torch


# Rates of each group: key in the result of the metric, name of the score, key of the number of nodes behind it.
GROUP_RATES = (
    ("group_accuracies", "accuracy", "group_counts"),
    ("group_positive_rates", "positive_rate", "group_counts"),
    ("group_true_positive_rates", "true_positive_rate", "group_positive_counts"),
)


class FairNodeClassification(NodeClassification):
    """Node classification whose graphs have a column `sensitive`, the group of each node."""

    shares = ("accuracy",)

    def gather(
        self, logits: "torch.Tensor", inputs: Mapping[str, Any], mask: "torch.Tensor"
    ) -> dict[str, "torch.Tensor"]:
        if inputs.get("sensitive") is None:
            raise ValueError(
                "the graph must have `sensitive`, the group of each node; got none. Add the column, or choose the "
                "task 'node-classification'."
            )
        chosen = (mask & (inputs["labels"] != UNLABELED)).nonzero().squeeze(1)
        return {**super().gather(logits, inputs, mask), "groups": inputs["sensitive"][chosen].cpu()}

    def summarize(self, result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
        scores = {name: value for name, value in result.items() if isinstance(value, float)}
        for values, name, _ in GROUP_RATES:
            rates = _spread_groups(result, values).items()
            scores |= {f"{name}{ending}": value for ending, value in rates if value is not None}
        return scores

    def count(self, result: Mapping[str, Any]) -> dict[str, int]:
        counts = {}
        for values, name, numbers in GROUP_RATES:
            sizes = _spread_groups(result, numbers)
            for ending in _spread_groups(result, values):
                counts[f"{name}{ending}"] = sizes[ending] if ending in sizes else sizes[ending.split("_class_")[0]]
        return counts


def _spread_groups(result: Mapping[str, Any], values: str) -> dict[str, Any]:
    """A list over groups by `_group_<id>`; where it holds lists over classes, by `_group_<id>_class_<id>`."""
    spread: dict[str, Any] = {}
    for group, value in zip(result["groups"], result[values], strict=True):
        if isinstance(value, list):
            spread |= {f"_group_{group}_class_{label}": item for label, item in enumerate(value)}
        else:
            spread[f"_group_{group}"] = value
    return spread
