"""Mean intersection over union of semantic segmentation, and two kinds of pixel accuracy."""

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
With I_c the correct pixels of class c, L_c its labeled and P_c its predicted pixels, each summed over the whole
dataset, and pixels with the ignored label left out of all three:

- "mean_iou": mean over classes of I_c / (L_c + P_c - I_c);
- "mean_accuracy": mean over classes of I_c / L_c;
- "overall_accuracy": sum of I_c / sum of L_c.

A class that is neither labeled nor predicted has no IoU, one that is not labeled has no accuracy; the means are over
the others. Every image is reduced to its table of (label, prediction) counts when it is added, so that hundreds of
masks take little memory.
"""

_INPUTS = """
Args:
    predictions (list of arrays or tensors of shape (height, width)): predicted class ids.
    references (list of arrays or tensors of shape (height, width)): class ids in [0, 256).
    num_labels (int): number of classes; only for `compute`.
    ignore_index (int, optional, defaults to 255): label of pixels to leave out; only for `compute`.

Returns:
    dict: "mean_iou", "mean_accuracy", "overall_accuracy" (float in [0, 1]), "per_category_iou" and
    "per_category_accuracy" (lists of num_labels floats, NaN where a class has none).

Example:
    >>> metric = decahub.load_metric("mean_iou")
    >>> result = metric.compute(predictions=[[[0, 1, 1]]], references=[[[0, 1, 255]]], num_labels=2)
    >>> result["mean_iou"]
    1.0
"""

_CITATION = ""

NUM_VALUES = 256  # masks are stored as bytes everywhere, hence the ids that a pixel can have


def count_pairs(prediction: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes `label * NUM_VALUES + prediction` of the pairs that occur in an image, and their pixel counts."""
    counts = np.bincount((reference * NUM_VALUES + prediction).ravel(), minlength=NUM_VALUES * NUM_VALUES)
    codes = counts.nonzero()[0]
    return codes, counts[codes]


def _to_ids(mask: object, name: str) -> np.ndarray:
    ids = np.asarray(mask)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"`{name}` must hold integers; got {ids.dtype}.")
    ids = ids.astype(np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < NUM_VALUES:
        raise ValueError(f"`{name}` must be in [0, {NUM_VALUES}); got values from {ids.min()} to {ids.max()}.")
    return ids


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


class MeanIou(evaluate.Metric):
    """See the module's description."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            # What is stored for an image: the codes of its (label, prediction) pairs, and their counts.
            features=datasets.Features(
                predictions=datasets.Sequence(datasets.Value("int64")),
                references=datasets.Sequence(datasets.Value("int64")),
            ),
        )

    def add_batch(self, *, predictions=None, references=None):
        """Add predicted and labeled masks of a batch; the masks of a pair must agree in size."""
        if len(predictions) != len(references):
            raise ValueError(
                "`predictions` and `references` must hold as many masks; "
                f"got {len(predictions)} and {len(references)}."
            )
        codes, counts = [], []
        for index, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
            prediction, reference = _to_ids(prediction, "predictions"), _to_ids(reference, "references")
            if prediction.shape != reference.shape:
                raise ValueError(
                    f"mask {index} of `predictions` must have the size of its reference, {reference.shape}; "
                    f"got {prediction.shape}. Resize the logits before the argmax."
                )
            image_codes, image_counts = count_pairs(prediction, reference)
            codes.append(image_codes)
            counts.append(image_counts)
        super().add_batch(predictions=codes, references=counts)

    def add(self, *, prediction=None, reference=None):
        """Add the predicted and the labeled mask of one image."""
        self.add_batch(predictions=[prediction], references=[reference])

    def _compute(self, predictions, references, num_labels, ignore_index=255):
        if not 1 <= num_labels <= NUM_VALUES:
            raise ValueError(f"`num_labels` must be in [1, {NUM_VALUES}]; got {num_labels}.")
        counts = np.zeros(NUM_VALUES * NUM_VALUES, dtype=np.int64)
        np.add.at(counts, np.concatenate(predictions).astype(np.int64), np.concatenate(references))
        confusion = counts.reshape(NUM_VALUES, NUM_VALUES)  # row: label, column: prediction
        if ignore_index is not None:
            confusion[ignore_index] = 0
        for name, totals in (("references", confusion.sum(1)), ("predictions", confusion.sum(0))):
            if totals[num_labels:].any():
                given = num_labels + int(np.argmax(totals[num_labels:] > 0))
                raise ValueError(f"`{name}` must be in [0, {num_labels}) or {ignore_index} (ignored); got {given}.")
        confusion = confusion[:num_labels, :num_labels]
        if not confusion.any():
            raise ValueError(f"`references` must hold labeled pixels; all of them are {ignore_index} (ignored).")
        correct, labeled, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        iou, accuracy = _divide(correct, labeled + predicted - correct), _divide(correct, labeled)
        return {
            "mean_iou": float(np.nanmean(iou)),
            "mean_accuracy": float(np.nanmean(accuracy)),
            "overall_accuracy": float(correct.sum() / labeled.sum()),
            "per_category_iou": iou.tolist(),
            "per_category_accuracy": accuracy.tolist(),
        }
