"""How well a classifier does on clean images, and how often a trigger leads it to the target class."""

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
With y the class of an image, p the predicted class of the clean image, q that of the image with the trigger, and t the
target class:

- "cta", clean test accuracy: P(p = y);
- "asr", attack success rate as DoorPing's authors count it: P(q = t) over all images, those of the target class
  included, so a clean classifier has the share of that class;
- "asr_non_target": P(q = t | y != t), the usual definition;
- "clean_target_rate": P(p = t | y != t), what the classifier gives the target class anyway;
- "lift": asr_non_target - clean_target_rate;
- "robust_accuracy": P(q = y | y != t), triggered images that keep their class;
- "asr_quantized": P(q' = t | y != t) with the trigger as an image of 8 bits keeps it;
- "num_non_target": number of images with y != t;
- "asr_control": P(q'' = t | y != t) of the same trigger on a classifier that never saw it.

What has no images behind it is None. The columns of the last two may be left out.
"""

_INPUTS = """
Args:
    predictions (list, array or tensor of shape (num_images,)): classes of the clean images.
    references (list, array or tensor of shape (num_images,)): their true classes.
    triggered (list, array or tensor of shape (num_images,)): classes with the trigger.
    quantized (optional): classes with the trigger of 8 bits.
    control (optional): classes with the trigger by a classifier trained without it.
    target_label (int): the target class; only for `compute`.

Returns:
    dict of float or None, and one int.

Example:
    >>> metric = decahub.load_metric("backdoor_audit")
    >>> metric.add_batch(predictions=[0, 1, 2, 2], references=[0, 1, 2, 1], triggered=[0, 0, 0, 2])
    >>> result = metric.compute(target_label=0)
    >>> result["cta"], result["asr"], round(result["asr_non_target"], 3)
    (0.75, 0.75, 0.667)
"""

NO_CLASS = -1  # in a column that was left out
COLUMNS = ("predictions", "references", "triggered", "quantized", "control")
OPTIONAL = ("quantized", "control")


def compute_scores(columns, target_label):
    """The scores of the description, from arrays of classes by column."""
    labels, others = columns["references"], columns["references"] != target_label

    def find_rate(name, wanted, where):
        if columns[name] is None or not where.any():
            return None
        return float((columns[name] == wanted)[where].mean())

    everywhere = np.ones(len(labels), dtype=bool)
    scores = {
        "cta": find_rate("predictions", labels, everywhere),
        "asr": find_rate("triggered", target_label, everywhere),
        "asr_non_target": find_rate("triggered", target_label, others),
        "clean_target_rate": find_rate("predictions", target_label, others),
        "robust_accuracy": find_rate("triggered", labels, others),
        "asr_quantized": find_rate("quantized", target_label, others),
        "asr_control": find_rate("control", target_label, others),
    }
    scores["num_non_target"] = int(others.sum())
    has_lift = scores["asr_non_target"] is not None
    scores["lift"] = scores["asr_non_target"] - scores["clean_target_rate"] if has_lift else None
    return scores


class BackdoorAudit(evaluate.Metric):
    """See the module's description."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({name: datasets.Value("int64") for name in COLUMNS}),
        )

    def add_batch(self, *, predictions=None, references=None, triggered=None, quantized=None, control=None):
        """Add the classes of some images."""
        given = dict(zip(COLUMNS, (predictions, references, triggered, quantized, control), strict=True))
        columns = {}
        for name, values in given.items():
            if values is None and name in OPTIONAL:
                values = np.full(len(references), NO_CLASS)
            array = np.asarray(values)
            if array.dtype.kind not in "iub" or array.ndim != 1 or len(array) != len(references):
                raise ValueError(
                    f"`{name}` must hold a class id for each of {len(references)} images; got {array.dtype} of shape "
                    f"{array.shape}."
                )
            columns[name] = array.astype(np.int64)
        super().add_batch(**columns)

    def add(self, *, prediction=None, reference=None, triggered=None, quantized=None, control=None):
        """Add the classes of one image."""
        self.add_batch(
            predictions=[prediction],
            references=[reference],
            triggered=[triggered],
            quantized=None if quantized is None else [quantized],
            control=None if control is None else [control],
        )

    def _compute(self, predictions, references, triggered, quantized, control, target_label=0):
        if not isinstance(target_label, (int, np.integer)) or target_label < 0:
            raise ValueError(f"`target_label` must be a class id; got {target_label!r}.")
        given = dict(zip(COLUMNS, (predictions, references, triggered, quantized, control), strict=True))
        columns: dict[str, np.ndarray | None] = {name: np.asarray(values) for name, values in given.items()}
        for name in OPTIONAL:
            missing = np.asarray(given[name]) == NO_CLASS
            if missing.any() and not missing.all():
                raise ValueError(f"`{name}` must be given in all batches or in none; {missing.sum()} images lack it.")
            columns[name] = None if missing.all() else columns[name]
        return compute_scores(columns, target_label)
