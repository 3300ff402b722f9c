"""Share of examples whose class is among the k classes with the highest scores."""

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Top-k accuracy: the share of examples whose class is among the k classes with the highest scores. Of two equal scores,
the class with the lower id counts as the higher one, as in `argmax`.

Every batch is reduced to one rank per example when it is added, so that memory does not grow with the number of
classes.
"""

_INPUTS = """
Args:
    predictions (list, array or tensor of shape (num_examples, num_classes)): scores, logits or probabilities.
    references (list, array or tensor of shape (num_examples,)): class ids in [0, num_classes).
    k (list of int, optional, defaults to (1, 5)): numbers of classes to look at; only for `compute`.

Returns:
    dict of float in [0, 1]: "accuracy" for k = 1, "top_<k>_accuracy" for every other k.

Example:
    >>> metric = decahub.load_metric("top_k_accuracy")
    >>> metric.compute(predictions=[[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], references=[1, 2], k=[1, 2])
    {'accuracy': 0.5, 'top_2_accuracy': 1.0}
"""

_CITATION = ""


def compute_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes stand before the right one in each row of scores."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    comes_first = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & comes_first)).sum(axis=1)


def _check(scores: np.ndarray, labels: np.ndarray) -> None:
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            "`predictions` must be (num_examples, num_classes) and `references` (num_examples,); "
            f"got {scores.shape} and {labels.shape}."
        )
    if not np.isfinite(scores).all():
        row = int(np.argmin(np.isfinite(scores).all(axis=1)))
        raise ValueError(
            f"`predictions` must be finite; got {scores[row].tolist()} in row {row}. Has training diverged?"
        )
    is_outside = (labels < 0) | (labels >= scores.shape[1])
    if is_outside.any():
        row = int(np.argmax(is_outside))
        raise ValueError(f"`references` must be in [0, {scores.shape[1]}); got {labels[row]} in row {row}.")


class TopKAccuracy(evaluate.Metric):
    """See the module's description."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            # What is stored: the rank of the right class, beside its id.
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def add_batch(self, *, predictions=None, references=None):
        """Add scores and class ids of a batch."""
        scores, labels = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.int64)
        _check(scores, labels)
        super().add_batch(predictions=compute_ranks(scores, labels), references=labels)

    def add(self, *, prediction=None, reference=None):
        """Add scores and class id of one example."""
        self.add_batch(predictions=[prediction], references=[reference])

    def _compute(self, predictions, references, k=(1, 5)):
        if not len(k) or min(k) < 1:
            raise ValueError(f"`k` must hold positive integers; got {k}.")
        ranks = np.asarray(predictions)
        return {"accuracy" if top == 1 else f"top_{top}_accuracy": float((ranks < top).mean()) for top in k}
