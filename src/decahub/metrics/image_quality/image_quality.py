"""How well predicted quality scores agree with those of people."""

import math
import warnings

import datasets
import evaluate
import numpy as np
import scipy


_DESCRIPTION = """
Agreement of predicted scores x with labels y (MOS or DMOS) of images, in float64. Rows with a NaN label are left out.

- "srcc": Spearman's rank correlation, Pearson's on average ranks; "krcc": Kendall's tau-b;
- "plcc": Pearson's correlation of x and y;
- "plcc_fit", "rmse_fit", "mae_fit": Pearson's correlation, root mean squared and mean absolute error of f(x) and y;
  f(x) = (b1 - b2) / (1 + exp(-(x - b3) / |b4|)) + b2 fitted by least squares; "fit_params" are b1 to b4. Where the fit
  fails, "fit_ok" is False and "plcc_fit" is "plcc";
- "rmse": root mean squared error of x and y;
- "level_accuracy", "level_accuracy_within_one": share of quality levels that are right, and at most one level off.

With sources, "srcc_<source>" and "plcc_<source>" are measured within each source of images, and "srcc_within" and
"plcc_within" are their means: a pooled correlation is high already if only the sources differ in quality.

Correlations are NaN, with a warning, for fewer than 3 images, for constant predictions and for constant labels.

With `num_bootstrap`, "<name>_interval" gives the percentile interval of "srcc", "plcc", "krcc" and "srcc_within" when
the images are drawn anew with replacement (within their sources).
"""

_INPUTS = """
Args:
    predictions (list, array or tensor of shape (num_images,)): scores on the scale of the labels.
    references (list, array or tensor of shape (num_images,)): labels; a larger score stands for a larger label.
    predicted_levels (list, array or tensor of shape (num_images,), optional): quality levels.
    levels (list, array or tensor of shape (num_images,), optional): levels of the labels.
    sources (list of str, optional): source of each image.
    num_bootstrap (int, optional, defaults to 0): number of resamples for intervals; only for `compute`.
    confidence (float, optional, defaults to 0.95): coverage of the intervals; only for `compute`.
    seed (int, optional, defaults to 0): of the resamples; only for `compute`.

Returns:
    dict of float, "fit_ok" (bool), "fit_params" (list of float, or None), and "num_images" by source in "counts".

Example:
    >>> metric = decahub.load_metric("image_quality")
    >>> metric.compute(predictions=[1, 2, 3, 5], references=[2, 1, 3, 4])["srcc"]
    0.8
"""

_CITATION = ""

NO_LEVEL = -1
MIN_IMAGES = 3
MAX_FIT_EVALUATIONS = 10_000
MIN_WIDTH = 1e-12  # of the curve, which is divided by it
RESAMPLED = ("srcc", "plcc", "krcc", "srcc_within")


def logistic(x, b1, b2, b3, b4):
    """The curve from predictions to labels."""
    return (b1 - b2) * scipy.special.expit((x - b3) / max(abs(b4), MIN_WIDTH)) + b2


def differentiate_logistic(x, b1, b2, b3, b4):
    """Derivatives of the curve by its parameters; differences of numbers fail where `b3` is nearly 0."""
    width = max(abs(b4), MIN_WIDTH)
    shares = scipy.special.expit((x - b3) / width)
    slopes = (b1 - b2) * shares * (1 - shares) / width
    return np.stack([shares, 1 - shares, -slopes, -slopes * (x - b3) / width * np.sign(b4)], axis=1)


def fit_logistic(predictions, labels):
    """Parameters of the curve, or None where least squares finds none."""
    start = [labels.max(), labels.min(), predictions.mean(), predictions.std() / 4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            params, _ = scipy.optimize.curve_fit(
                logistic, predictions, labels, start, jac=differentiate_logistic, maxfev=MAX_FIT_EVALUATIONS
            )
        except (RuntimeError, TypeError, ValueError):  # no convergence, fewer images than parameters
            return None
    return params if np.isfinite(params).all() and len(np.unique(logistic(predictions, *params))) > 1 else None


def is_defined(predictions, labels):
    """Whether correlations are."""
    return len(labels) >= MIN_IMAGES and np.ptp(predictions) > 0 and np.ptp(labels) > 0


def correlate(predictions, labels):
    """Pearson's correlation, Spearman's and Kendall's; NaN where they are undefined."""
    if not is_defined(predictions, labels):
        return {"srcc": math.nan, "plcc": math.nan, "krcc": math.nan}
    ranks = scipy.stats.rankdata(predictions), scipy.stats.rankdata(labels)
    return {
        "srcc": pearson(*ranks),
        "plcc": pearson(predictions, labels),
        "krcc": float(scipy.stats.kendalltau(predictions, labels).statistic),
    }


def pearson(first, second):
    """Correlation of two arrays that are not constant."""
    first, second = first - first.mean(), second - second.mean()
    return float(np.clip(first @ second / np.sqrt((first @ first) * (second @ second)), -1, 1))


def measure_fit(predictions, labels, plcc):
    """Scores after the logistic fit."""
    params = fit_logistic(predictions, labels) if is_defined(predictions, labels) else None
    if params is None:
        return {"plcc_fit": plcc, "rmse_fit": math.nan, "mae_fit": math.nan, "fit_ok": False, "fit_params": None}
    errors = logistic(predictions, *params) - labels
    return {
        "plcc_fit": pearson(logistic(predictions, *params), labels),
        "rmse_fit": float(np.sqrt((errors**2).mean())),
        "mae_fit": float(np.abs(errors).mean()),
        "fit_ok": True,
        "fit_params": [float(value) for value in params],
    }


def measure_sources(predictions, labels, sources):
    """Correlations within each source, and their means."""
    names = [name for name in np.unique(sources) if name]
    if not names:
        return {}
    scores = {name: correlate(predictions[sources == name], labels[sources == name]) for name in names}
    result = {f"{kind}_{name}": scores[name][kind] for kind in ("srcc", "plcc") for name in names}
    means = {f"{kind}_within": float(np.mean([scores[name][kind] for name in names])) for kind in ("srcc", "plcc")}
    return {**means, **result}


def bootstrap(predictions, labels, sources, num_bootstrap, confidence, seed):
    """Percentile intervals of `RESAMPLED` over resamples of the images, drawn within their sources."""
    generator = np.random.default_rng(seed)
    strata = [np.flatnonzero(sources == name) for name in np.unique(sources)]
    values: dict[str, list[float]] = {name: [] for name in RESAMPLED}
    for _ in range(num_bootstrap):
        chosen = np.concatenate([generator.choice(stratum, len(stratum)) for stratum in strata])
        arrays = predictions[chosen], labels[chosen]
        scores = {**correlate(*arrays), **measure_sources(*arrays, sources[chosen])}
        for name in RESAMPLED:
            values[name].append(scores.get(name, math.nan))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    return {
        f"{name}_interval": [float(value) for value in np.nanquantile(draws, tails)]
        for name, draws in values.items()
        if np.isfinite(draws).any()
    }


class ImageQuality(evaluate.Metric):
    """See the module's description."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "references": datasets.Value("float64"),
                    "predicted_levels": datasets.Value("int64"),
                    "levels": datasets.Value("int64"),
                    "sources": datasets.Value("string"),
                }
            ),
        )

    def add_batch(self, *, predictions=None, references=None, predicted_levels=None, levels=None, sources=None):
        """Add scores and labels of a batch of images."""
        scores, labels = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.float64)
        if scores.ndim != 1 or scores.shape != labels.shape:
            raise ValueError(
                "`predictions` and `references` must have the same shape (num_images,); got "
                f"{scores.shape} and {labels.shape}."
            )
        if not np.isfinite(scores).all():
            row = int(np.argmin(np.isfinite(scores)))
            raise ValueError(f"`predictions` must be finite; got {scores[row]} in row {row}. Has training diverged?")
        if (predicted_levels is None) != (levels is None):
            raise ValueError("`levels` and `predicted_levels` must be given together; got one of them.")
        missing = np.full(len(scores), NO_LEVEL)
        super().add_batch(
            predictions=scores,
            references=labels,
            predicted_levels=missing if predicted_levels is None else np.asarray(predicted_levels, dtype=np.int64),
            levels=missing if levels is None else np.asarray(levels, dtype=np.int64),
            sources=[""] * len(scores) if sources is None else [str(source) for source in sources],
        )

    def add(self, *, prediction=None, reference=None, **columns):
        """Add score and label of one image."""
        singles = {f"{name}s": [value] for name, value in columns.items()}
        self.add_batch(predictions=[prediction], references=[reference], **singles)

    def compute(
        self, *, predictions=None, references=None, predicted_levels=None, levels=None, sources=None, **kwargs
    ):
        """Scores of what was added, or of the arrays that are given."""
        if predictions is not None:
            self.add_batch(
                predictions=predictions,
                references=references,
                predicted_levels=predicted_levels,
                levels=levels,
                sources=sources,
            )
        return super().compute(**kwargs)

    def _compute(
        self,
        predictions,
        references,
        predicted_levels,
        levels,
        sources,
        num_bootstrap=0,
        confidence=0.95,
        seed=0,
    ):
        if num_bootstrap < 0:
            raise ValueError(f"`num_bootstrap` must be at least 0; got {num_bootstrap}.")
        if not 0 < confidence < 1:
            raise ValueError(f"`confidence` must be in (0, 1); got {confidence}.")
        labels = np.asarray(references, dtype=np.float64)
        known = np.isfinite(labels)
        if not known.any():
            raise ValueError("`references` must hold at least one finite label; got none.")
        arrays = predictions, predicted_levels, levels, sources
        scores, predicted, wanted, sources = (np.asarray(values)[known] for values in arrays)
        labels = labels[known]
        if not is_defined(scores, labels):
            warnings.warn(
                f"Correlations are undefined (NaN): they need {MIN_IMAGES} images and predictions and labels that "
                f"differ; got {len(labels)} images.",
                stacklevel=2,
            )
        result = correlate(scores, labels)
        result |= measure_fit(scores, labels, result["plcc"])
        result["rmse"] = float(np.sqrt(((scores - labels) ** 2).mean()))
        leveled = wanted != NO_LEVEL
        if leveled.any():
            distance = np.abs(predicted - wanted)[leveled]
            result["level_accuracy"] = float((distance == 0).mean())
            result["level_accuracy_within_one"] = float((distance <= 1).mean())
        result |= measure_sources(scores, labels, sources)
        result["counts"] = {str(name): int((sources == name).sum()) for name in np.unique(sources) if name}
        if num_bootstrap:
            result |= bootstrap(scores, labels, sources, num_bootstrap, confidence, seed)
        return result
