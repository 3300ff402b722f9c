"""How well a classifier does, and how differently it treats the groups of a sensitive attribute."""

import warnings

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Nodes (or any examples) whose label is -100 are left out. With y the label, p the predicted class and s the group:

- "accuracy", "f1" (of class 1; with more than two classes the mean over those that are labeled or predicted),
  "roc_auc" (two classes and scores only), "majority_class_accuracy" (of always answering the commonest class);
- "statistical_parity_difference": |P(p=1 | s=0) - P(p=1 | s=1)|;
- "equal_opportunity_difference": |P(p=1 | y=1, s=0) - P(p=1 | y=1, s=1)|.

With more than two groups or classes both differences are the largest over all pairs of groups and, one against the
rest, over all classes; "mean_statistical_parity_difference" and "mean_equal_opportunity_difference" are the means over
the same. For each group, in the order of "groups":

- "group_counts", "group_accuracies", and "group_positive_counts", the nodes with y=1;
- "group_positive_rates": P(p=1 | s), "group_true_positive_rates": P(p=1 | y=1, s); with more than two classes a list
  over the classes in place of each number.

What is undefined is None, with a warning: differences where a single group occurs, rates of a group without nodes of
a class. A group that lacks a rate is left out of the differences.

With `num_bootstrap`, "<name>_interval" gives the percentile interval of each of the first five scores when the nodes
are drawn anew with replacement. It covers the choice of test nodes as if they were independent, and nothing else.
"""

_INPUTS = """
Args:
    predictions (list, array or tensor): class scores (num_nodes, num_labels), or class ids (num_nodes,).
    references (list, array or tensor of shape (num_nodes,)): class ids, or -100 to leave a node out.
    groups (list, array or tensor of shape (num_nodes,)): ids of groups, 0 or larger.
    num_bootstrap (int, optional, defaults to 0): number of resamples for intervals; only for `compute`.
    confidence (float, optional, defaults to 0.95): coverage of the intervals; only for `compute`.
    seed (int, optional, defaults to 0): of the resamples; only for `compute`.

Returns:
    dict of float in [0, 1], None, or lists of such.

Example:
    >>> metric = decahub.load_metric("group_fairness")
    >>> result = metric.compute(predictions=[1, 1, 0, 1], references=[1, 0, 0, 1], groups=[0, 0, 1, 1])
    >>> result["statistical_parity_difference"], result["equal_opportunity_difference"]
    (0.5, 0.0)
"""

_CITATION = ""

IGNORE_INDEX = -100
RESAMPLED = ("accuracy", "roc_auc", "f1", "statistical_parity_difference", "equal_opportunity_difference")
MAX_DRAWS = 2_000_000  # of resampled nodes in memory at once


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """A quotient that is NaN where nothing was counted."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def compute_roc_auc(scores: np.ndarray, is_positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for each row of weights `(num_rows, num_nodes)`, which say how often a node counts.

    Higher scores mean more likely positive; ties count one half. NaN where a class has no weight.
    """
    order = np.argsort(scores, kind="stable")
    values = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    positive = np.add.reduceat(weights[:, order] * is_positive[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~is_positive[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    return divide((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def compute_rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Rates of groups, from counts `(..., num_groups, num_labels, num_labels)` by label and prediction, or NaN.

    `counts` and `accuracies` are `(..., num_groups)`, the others `(..., num_groups, num_labels)`.
    """
    correct, labeled = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1)
    totals = labeled.sum(axis=-1)
    return {
        "counts": totals,
        "positive_counts": labeled,
        "accuracies": divide(correct.sum(axis=-1), totals),
        "positive_rates": divide(counts.sum(axis=-2), totals[..., None]),
        "true_positive_rates": divide(correct, labeled),
    }


def compute_gaps(rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest and mean difference of rates `(..., num_groups, num_classes)` over all pairs of groups and all classes.

    NaN is an undefined rate, and the result where no pair has rates.
    """
    first, second = np.triu_indices(rates.shape[-2], k=1)
    gaps = np.abs(rates[..., first, :] - rates[..., second, :]).reshape(*rates.shape[:-2], -1)
    is_defined = ~np.isnan(gaps)
    gaps = np.where(is_defined, gaps, 0.0)
    largest = np.max(gaps, axis=-1, initial=0.0)
    return np.where(is_defined.any(axis=-1), largest, np.nan), divide(gaps.sum(axis=-1), is_defined.sum(axis=-1))


def compute_f1(counts: np.ndarray) -> np.ndarray:
    """F1 of class 1 from counts as in `compute_rates`; of more than two classes the mean over those that occur."""
    confusion = counts.sum(axis=-3)
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    scores = divide(2 * correct, confusion.sum(axis=-1) + confusion.sum(axis=-2))
    if scores.shape[-1] == 2:
        return scores[..., 1]
    occurs = ~np.isnan(scores)
    return divide(np.where(occurs, scores, 0.0).sum(axis=-1), occurs.sum(axis=-1))


class Nodes:
    """The nodes that count, by group, label and prediction, from the arrays that the metric takes."""

    def __init__(self, predictions, labels, groups):
        is_counted = labels != IGNORE_INDEX
        predictions, labels, groups = predictions[is_counted], labels[is_counted], groups[is_counted]
        if not len(labels):
            raise ValueError(f"`references` must hold labeled nodes; all of them are {IGNORE_INDEX} (left out).")
        has_scores = predictions.ndim == 2
        classes = predictions.argmax(axis=1) if has_scores else predictions.astype(np.int64)
        num_labels = predictions.shape[1] if has_scores else max(2, int(classes.max()) + 1, int(labels.max()) + 1)
        self.groups, group_places = np.unique(groups, return_inverse=True)
        self.shape = (len(self.groups), num_labels, num_labels)
        self.cells = np.ravel_multi_index((group_places, labels, classes), self.shape)
        self.is_positive = labels == 1
        self.scores = predictions[:, 1] - predictions[:, 0] if has_scores and num_labels == 2 else None

    def count(self, weights=None):
        """How many nodes each group has of each label and prediction, for each row of weights."""
        if weights is None:
            return np.bincount(self.cells, minlength=np.prod(self.shape)).reshape(self.shape)
        occurring, places = np.unique(self.cells, return_inverse=True)
        counts = np.zeros((len(weights), np.prod(self.shape)))
        counts[:, occurring] = weights @ np.eye(len(occurring))[places]
        return counts.reshape(-1, *self.shape)

    def measure(self, weights=None):
        """All scores that are single numbers, for each row of weights; NaN where undefined."""
        counts = self.count(weights)
        rates = compute_rates(counts)
        # Of two classes the second is the positive one; of more, each is compared with the rest.
        classes = slice(1, 2) if self.shape[1] == 2 else slice(None)
        parity, mean_parity = compute_gaps(rates["positive_rates"][..., classes])
        opportunity, mean_opportunity = compute_gaps(rates["true_positive_rates"][..., classes])
        scores = {
            "accuracy": np.trace(counts.sum(axis=-3), axis1=-2, axis2=-1) / len(self.cells),
            "roc_auc": np.full(counts.shape[:-3], np.nan),
            "f1": compute_f1(counts),
            "statistical_parity_difference": parity,
            "equal_opportunity_difference": opportunity,
        }
        if max(self.shape) > 2:
            scores["mean_statistical_parity_difference"] = mean_parity
            scores["mean_equal_opportunity_difference"] = mean_opportunity
        if self.scores is not None:
            rows = np.ones((1, len(self.cells))) if weights is None else weights
            scores["roc_auc"] = compute_roc_auc(self.scores, self.is_positive, rows).reshape(counts.shape[:-3])
        return scores

    def describe_groups(self):
        """The rates of each group as lists; `None` where undefined."""
        rates = compute_rates(self.count())
        if self.shape[1] == 2:
            rates = {name: values[:, 1] if values.ndim == 2 else values for name, values in rates.items()}
        return {"groups": self.groups.tolist()} | {f"group_{name}": _to_plain(value) for name, value in rates.items()}

    def warn(self):
        """Says which differences are undefined, and why."""
        if len(self.groups) < 2:
            warnings.warn(
                f"All nodes belong to group {self.groups[0]}: differences between groups are None.", stacklevel=2
            )
        labeled = self.count().sum(axis=-1)
        for group, label in np.argwhere(labeled == 0).tolist():
            if self.shape[1] > 2 or label == 1:
                warnings.warn(
                    f"Group {self.groups[group]} has no node of class {label}: it has no true-positive rate there "
                    "and is left out of `equal_opportunity_difference`.",
                    stacklevel=2,
                )
        if self.scores is not None and len(set(self.is_positive.tolist())) < 2:
            warnings.warn("All nodes have the same label: `roc_auc` is None.", stacklevel=2)

    def resample(self, num_bootstrap, confidence, seed):
        """Percentile intervals of the scores in `RESAMPLED`."""
        if num_bootstrap < 0:
            raise ValueError(f"`num_bootstrap` must be at least 0 (no intervals); got {num_bootstrap}.")
        if not 0 < confidence < 1:
            raise ValueError(f"`confidence` must be in (0, 1); got {confidence}.")
        if not num_bootstrap:
            return {}
        generator, num_nodes = np.random.default_rng(seed), len(self.cells)
        chunks, num_rows = [], max(1, MAX_DRAWS // num_nodes)
        for start in range(0, num_bootstrap, num_rows):
            rows = min(num_rows, num_bootstrap - start)
            draws = generator.integers(0, num_nodes, (rows, num_nodes)) + num_nodes * np.arange(rows)[:, None]
            weights = np.bincount(draws.ravel(), minlength=rows * num_nodes).reshape(rows, num_nodes)
            chunks.append(self.measure(weights.astype(np.float64)))
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        intervals = {}
        for name in RESAMPLED:
            values = np.concatenate([chunk[name] for chunk in chunks])
            values = values[~np.isnan(values)]
            intervals[f"{name}_interval"] = np.quantile(values, tails).tolist() if len(values) else None
        return intervals


def _to_plain(value):
    """Numbers, or lists of such, with `None` for NaN."""
    if isinstance(value, list):
        return [_to_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _to_plain(value.tolist())
    return None if value != value else value


def _read(predictions, references, groups):
    """The three inputs as arrays, checked."""
    predictions, labels, groups = np.asarray(predictions), np.asarray(references), np.asarray(groups)
    for name, ids in (("references", labels), ("groups", groups)):
        if ids.dtype.kind not in "iub":
            raise TypeError(f"`{name}` must hold integers; got {ids.dtype}. Map each value to an id first.")
    labels, groups = labels.astype(np.int64), groups.astype(np.int64)
    has_scores = predictions.ndim == 2
    if predictions.ndim not in (1, 2) or not labels.shape == groups.shape == predictions.shape[:1]:
        raise ValueError(
            "`predictions` must be (num_nodes, num_labels) or (num_nodes,), `references` and `groups` (num_nodes,); "
            f"got {predictions.shape}, {labels.shape} and {groups.shape}."
        )
    if not has_scores and predictions.dtype.kind not in "iub":
        raise TypeError(f"`predictions` of shape (num_nodes,) must be class ids; got {predictions.dtype}.")
    if has_scores and predictions.shape[1] < 2:
        raise ValueError(f"`predictions` must hold scores of two classes at least; got {predictions.shape}.")
    if not np.isfinite(predictions).all():
        raise ValueError("`predictions` must be finite; got NaN or infinity. Has training diverged?")
    num_labels = predictions.shape[1] if has_scores else None
    bounds = [("references", labels[labels != IGNORE_INDEX], num_labels), ("groups", groups, None)]
    if not has_scores:
        bounds.append(("predictions", predictions, None))
    for name, ids, stop in bounds:
        if len(ids) and (ids.min() < 0 or (stop is not None and ids.max() >= stop)):
            given = ids.min() if ids.min() < 0 else ids.max()
            allowed = "0 or larger" if stop is None else f"in [0, {stop})"
            raise ValueError(f"`{name}` must be {allowed}; got {given}.")
    return predictions.astype(np.float64 if has_scores else np.int64), labels, groups


class GroupFairness(evaluate.Metric):
    """See the module's description."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            # What is stored as the prediction of a node: its scores, or its class id alone.
            features=datasets.Features(
                predictions=datasets.Sequence(datasets.Value("float64")),
                references=datasets.Value("int64"),
                groups=datasets.Value("int64"),
            ),
        )

    def add_batch(self, *, predictions=None, references=None, groups=None):
        """Add predictions, class ids and groups of some nodes."""
        predictions, labels, groups = _read(predictions, references, groups)
        super().add_batch(predictions=predictions.reshape(len(labels), -1), references=labels, groups=groups)

    def add(self, *, prediction=None, reference=None, group=None):
        """Add prediction, class id and group of one node."""
        self.add_batch(predictions=[prediction], references=[reference], groups=[group])

    def measure(self, *, predictions, references, groups, num_bootstrap=0, confidence=0.95, seed=0):
        """The scores of `compute` at once, nothing stored: for a measurement in every epoch of a training run."""
        nodes = Nodes(*_read(predictions, references, groups))
        nodes.warn()
        scores = {name: _to_plain(value.item()) for name, value in nodes.measure().items()}
        commonest = nodes.count().sum(axis=(0, 2)).max()
        scores["majority_class_accuracy"] = float(commonest / len(nodes.cells))
        return scores | nodes.describe_groups() | nodes.resample(num_bootstrap, confidence, seed)

    def _compute(self, predictions, references, groups, **options):
        widths = {len(row) for row in predictions}
        if len(widths) > 1:
            raise ValueError(f"`predictions` must have the same number of classes in all batches; got {widths}.")
        predictions = np.asarray(predictions)
        if predictions.shape[1] == 1:
            predictions = predictions[:, 0].astype(np.int64)
        return self.measure(predictions=predictions, references=references, groups=groups, **options)
