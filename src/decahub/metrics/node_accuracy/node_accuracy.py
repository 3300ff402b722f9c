"""Accuracy, macro F1 and, for two classes, the area under the ROC curve of classified nodes."""

import warnings

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Nodes whose label is -100 are left out. Over the others:

- "accuracy": share of nodes whose class has the highest score; of two equal scores, the class with the lower id counts
  as the higher one, as in `argmax`;
- "macro_f1": mean of 2 * correct / (labeled + predicted) over the classes that are labeled or predicted at all;
- "roc_auc", for two classes only: the probability that a node of class 1 has a higher score for class 1, relative to
  that for class 0, than a node of class 0 has; equal scores count one half. None if one of the classes is not labeled.
"""

_INPUTS = """
Args:
    predictions (list, array or tensor of shape (num_nodes, num_labels)): scores, logits or (log-)probabilities.
    references (list, array or tensor of shape (num_nodes,)): class ids in [0, num_labels), or -100 to leave a node
        out.

Returns:
    dict: "accuracy" and "macro_f1" (float in [0, 1]) and, for two classes, "roc_auc" (float in [0, 1] or None).

Example:
    >>> metric = decahub.load_metric("node_accuracy")
    >>> metric.compute(predictions=[[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.9, 0.0, 0.1]], references=[1, 0, -100])
    {'accuracy': 1.0, 'macro_f1': 1.0}
"""

_CITATION = ""

IGNORE_INDEX = -100


def compute_roc_auc(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Area under the ROC curve by the ranks of the positive examples; equal scores share their mean rank."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    num_positive = int(is_positive.sum())
    num_negative = len(scores) - num_positive
    return float((ranks[is_positive].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def _check(scores: np.ndarray, labels: np.ndarray) -> None:
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not scores.shape[1]:
        raise ValueError(
            "`predictions` must be (num_nodes, num_labels) and `references` (num_nodes,); "
            f"got {scores.shape} and {labels.shape}."
        )
    if not np.isfinite(scores).all():
        node = int(np.argmin(np.isfinite(scores).all(axis=1)))
        raise ValueError(
            f"`predictions` must be finite; got {scores[node].tolist()} at node {node}. Has training diverged?"
        )
    is_outside = ((labels < 0) | (labels >= scores.shape[1])) & (labels != IGNORE_INDEX)
    if is_outside.any():
        node = int(np.argmax(is_outside))
        raise ValueError(
            f"`references` must be in [0, {scores.shape[1]}) or {IGNORE_INDEX} (left out); "
            f"got {labels[node]} at node {node}."
        )


def _measure(scores: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    num_labels = scores.shape[1]
    is_counted = labels != IGNORE_INDEX
    if not is_counted.all():
        scores, labels = scores[is_counted], labels[is_counted]
    if not len(labels):
        raise ValueError(f"`references` must hold labeled nodes; all of them are {IGNORE_INDEX} (left out).")
    pairs = np.bincount(labels * num_labels + scores.argmax(axis=1), minlength=num_labels**2)
    confusion = pairs.reshape(num_labels, num_labels)  # row: label, column: prediction
    correct, occurrences = confusion.diagonal(), confusion.sum(axis=1) + confusion.sum(axis=0)
    occurs = occurrences > 0
    result: dict[str, float | None] = {
        "accuracy": float(correct.sum() / len(labels)),
        "macro_f1": float((2 * correct[occurs] / occurrences[occurs]).mean()),
    }
    if num_labels == 2:
        is_positive = labels == 1
        result["roc_auc"] = None
        if is_positive.all() or not is_positive.any():
            warnings.warn(f"`roc_auc` is None: all labels are {labels[0]}, and it needs both classes.", stacklevel=2)
        else:
            result["roc_auc"] = compute_roc_auc(scores[:, 1] - scores[:, 0], is_positive)
    return result


class NodeAccuracy(evaluate.Metric):
    """See the module's description."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def add_batch(self, *, predictions=None, references=None):
        """Add scores and class ids of some nodes."""
        scores, labels = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.int64)
        _check(scores, labels)
        super().add_batch(predictions=scores, references=labels)

    def add(self, *, prediction=None, reference=None):
        """Add scores and class id of one node."""
        self.add_batch(predictions=[prediction], references=[reference])

    def measure(self, *, predictions, references):
        """The scores of `compute` at once, nothing stored: for a measurement in every epoch of a training run."""
        scores, labels = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.int64)
        _check(scores, labels)
        return _measure(scores, labels)

    def _compute(self, predictions, references):
        widths = {len(row) for row in predictions}
        if len(widths) > 1:
            raise ValueError(f"`predictions` must have the same number of classes in all batches; got {widths}.")
        return _measure(np.asarray(predictions, dtype=np.float64), np.asarray(references))
