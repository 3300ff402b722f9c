"""Structure of drum texts: steady bars and fills, copies and novelty, validity, and bits for each step."""

import math
import warnings
from typing import Any

import datasets
import evaluate
import numpy as np

from .corpus import Corpus, draw_weights, find_interval, measure
from .rolls import (
    check_text,
    count_lines,
    count_onsets,
    drop_marks,
    drop_silence,
    pack_bars,
    parse_bars,
    sum_hits,
    sum_novelty,
    sum_paper,
    sum_steadiness,
    sum_validity,
)
from .structure import BAR_LINES, MAX_BARS


_DESCRIPTION = """
How a set of drum texts is built, after Zhang and Callison-Burch (arXiv 2301.01162), with additions. Nearer to the
scores of human texts is better, in either direction.

Silent bars at the beginning and at the end of a text are left out, but for the shares of well-formed texts.

The paper's scores; the authors' script measures silent bars, too, so compare with its scores by
`strip_silence=False, trim_empty=False`:

- "stability": Levenshtein distance of a bar to the neighbor that is nearer to it, mean over the inner bars of all
  texts. Low: bars repeat.
- "centre_gap", "centre_spread": the stabilities of one text are divided into two clusters, steady bars and fills; the
  distance of the two means, and the mean distance of a value to its own. Mean over texts. The authors' script calls
  them "intra" and "inter".

Additions:

- "num_bars"; "hamming_stability" and "zero_share": as stability, in cells that differ, and the share of bars that
  equal a neighbor; "fill_rate": share of bars in the upper cluster, where the clusters are 4 cells apart;
  "groove_consistency": 1 minus the share of steps in which one of two successive bars has a hit and the other has not.
- Of bars after the prompt: "copy_rate", the share that equals a bar of the prompt; "repeat_rate", any earlier bar;
  "train_copy_rate", a bar of the training texts that is not silent; "hits_per_bar", in all and by column;
  "line_divergence" and "onset_divergence", the Jensen-Shannon divergence from the references, in bits, of the lines
  and of the hits by step and column. A divergence does not tell copies from compositions: read it beside the rates.
- "valid_line_rate", "valid_text_rate", "exact_length_rate": shares of well-formed lines and texts, and of texts with
  the wanted number of lines.
- "bits_per_step": negative log likelihood of the text after the prompt for each sixteenth note, separators and end
  included; "separator_bits_per_step" is their part of it.
"""

_INPUTS = """
Args:
    predictions (list of str, optional): drum texts, one line of "o" and "-" for each step, prompts included. Lines
        that are a separator or an end mark are left out. A text whose bars or lines all have another length than
        `bar_lines` and `columns` say is refused.
    references (list of str, optional): human texts; as many as there are, in any order.
    nll, num_steps (lists of float and int, optional): of each text, the nats of what comes after the prompt and its
        number of steps. separator_nll (list of float, optional): the part of separators and end.
    velocity_errors, timing_errors, num_hits (lists of float, float and int, optional): of each text, the summed
        absolute errors of the velocities (1 to 127) and of the timing (in sixteenth notes), and the number of hits.
    train_texts (list of str, optional): texts of the training set; only for `compute`.
    prompt_bars (int, optional, defaults to 2): bars that were given; only for `compute`, as all that follow.
    bars (int, optional, defaults to 16): bars that were wanted; later ones are left out.
    bar_lines (int, optional, defaults to 16): lines of a bar.
    columns (list of str, optional): names of the columns, by default the method's six.
    cluster (str, optional, defaults to "exact"): "sklearn" divides stabilities as the authors' script, whose result
        depends on a random start.
    strip_silence (bool, optional, defaults to True): leave out silent bars at the beginning of each text.
    trim_empty (bool, optional, defaults to True): leave out silent bars at the end in the paper's scores; from the
        additions they always are.
    num_resamples (int, optional, defaults to 1000): sets that the intervals are drawn from; 0 for no intervals.
    seed (int, optional, defaults to 0): seed of the draws.

Returns:
    dict: each score by its name (None where no text has it); with `references` the dict "reference_figures"; with
    intervals "intervals" and, with `references`, "difference_intervals" (predictions minus references), dicts of the
    middle 95 percent over texts drawn with replacement; "num_texts"; "num_excluded", the number of texts without a
    score, by score: stability needs three bars, the clusters two stabilities.

Example:
    >>> metric = decahub.load_metric("drum_structure")
    >>> steady, fill = "o-----\\n" * 16, "--o--o\\n" * 16
    >>> result = metric.compute(predictions=[steady + steady + fill + steady], num_resamples=0)
    >>> result["zero_share"], result["repeat_rate"]
    (0.5, 0.5)
"""

_CITATION = """
@misc{zhang2023language,
  title={Language Models are Drummers: Drum Composition with Natural Language Pre-Training},
  author={Li Zhang and Chris Callison-Burch},
  year={2023},
  eprint={2301.01162},
  archivePrefix={arXiv}
}
"""

COLUMNS = ("crash", "ride", "snare", "kick", "hihat", "tom")
MARKS = ("SEP", "END")
EXPRESSION = ("velocity_errors", "timing_errors", "num_hits")
INPUTS = ("predictions", "references", "nll", "separator_nll", "num_steps", *EXPRESSION)


def sum_texts(
    texts: list[str],
    train_texts: list[str] | None = None,
    *,
    prompt_bars: int = 2,
    bars: int = MAX_BARS,
    bar_lines: int = BAR_LINES,
    columns: tuple[str, ...] = COLUMNS,
    cluster: str = "exact",
    strip_silence: bool = True,
    trim_empty: bool = True,
) -> Corpus:
    """Sums of the scores of each text; arguments are those of the metric."""

    def check(text: str) -> str:
        return check_text(text, MARKS, len(columns), bar_lines)

    def read(text: str) -> str:
        return drop_silence(drop_marks(text, MARKS), bar_lines, at_start=strip_silence, at_end=False)

    train_bars = None
    if train_texts is not None:
        parsed = (parse_bars(read(text), len(columns), bar_lines, bars) for text in map(check, train_texts))
        train_bars = {key for rolls in parsed for key in pack_bars(rolls)}
    rows, lines, onsets = [], [], []
    for text in map(check, texts):
        stripped = read(text)
        roll = parse_bars(stripped, len(columns), bar_lines, bars)
        written = roll[prompt_bars:]
        judged = drop_silence(stripped, bar_lines, at_start=False, at_end=trim_empty)
        rows.append(
            {
                **sum_paper(judged, bar_lines, bars, cluster),
                **sum_steadiness(roll),
                **sum_novelty(roll, prompt_bars, train_bars),
                **sum_hits(written, columns),
                **sum_validity(drop_marks(text, MARKS), len(columns), bars * bar_lines),
            }
        )
        lines.append(count_lines(written))
        onsets.append(count_onsets(written))
    sums = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}
    counts = {"line_divergence": np.array(lines, np.float64), "onset_divergence": np.array(onsets, np.float64)}
    return Corpus(sums, counts)


def sum_bits(nll: list[float], separator_nll: list[float], num_steps: list[int]) -> Corpus:
    """Sums of bits and of steps."""
    names = {"bits_per_step": nll}
    if separator_nll:
        names["separator_bits_per_step"] = separator_nll
    return Corpus({name: np.stack([np.array(nats) / math.log(2), num_steps], axis=1) for name, nats in names.items()})


def sum_expression(velocity_errors: list[float], timing_errors: list[float], num_hits: list[int]) -> Corpus:
    """Sums of errors and of hits."""
    errors = {"velocity_error": velocity_errors, "timing_error": timing_errors}
    return Corpus({name: np.stack([np.array(values), num_hits], axis=1) for name, values in errors.items()})


def _check(options: dict[str, Any], inputs: dict[str, list]) -> None:
    unknown = options.keys() - {"num_resamples"} - (sum_texts.__kwdefaults__ or {}).keys()
    if unknown:
        raise TypeError(f"`{min(unknown)}` must be an argument of this metric; it is not.")
    if isinstance(options.get("columns"), str):
        raise TypeError(
            f"`columns` must be a list of names, one for each character of a line; got {options['columns']!r}."
        )
    for name, least in (("prompt_bars", 0), ("bars", 1), ("bar_lines", 1), ("num_resamples", 0)):
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"`{name}` must be a whole number, at least {least}; got {value!r}.")
    if not inputs["predictions"] and not inputs["nll"]:
        raise ValueError("`predictions` or `nll` must be given; got neither.")
    for name in ("nll", "separator_nll", "num_steps"):
        values = inputs[name]
        if not np.isfinite(values).all():
            raise ValueError(f"`{name}` must be finite; got {values}. Has training diverged?")
    sizes = {name: len(inputs[name]) for name in ("nll", "separator_nll", "num_steps")}
    if sizes["nll"] != sizes["num_steps"] or sizes["separator_nll"] not in (0, sizes["nll"]):
        raise ValueError(f"`nll` and `num_steps` must have one value for each text; got {sizes}.")
    sizes = {name: len(inputs[name]) for name in EXPRESSION}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"`velocity_errors`, `timing_errors` and `num_hits` must go together; got {sizes}.")
    if any(steps < 1 for steps in inputs["num_steps"]):
        raise ValueError(f"`num_steps` must be at least 1; got {min(inputs['num_steps'])}. Leave such texts out.")


def check_texts(name: str, texts: Any) -> None:
    """Refuses what is no list of texts."""
    if texts is None:
        return
    wrong = [texts] if isinstance(texts, str) else [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise TypeError(f"`{name}` must be a list of texts; got {type(wrong[0]).__name__}.")


def _to_plain(scores: dict[str, np.ndarray]) -> dict[str, float | None]:
    return {name: None if np.isnan(value[0]) else float(value[0]) for name, value in scores.items()}


def _find_intervals(scores: dict[str, np.ndarray]) -> dict[str, list[float]]:
    intervals = {name: find_interval(values) for name, values in scores.items()}
    return {name: interval for name, interval in intervals.items() if interval is not None}


def _report(corpora: list[Corpus], reference: Corpus | None, num_resamples: int, seed: int) -> dict:
    """Scores, intervals and counts; each of `corpora` is a set of its own, with scores of its own."""
    generator = np.random.default_rng(seed)
    scores: dict[str, np.ndarray] = {}
    resampled: dict[str, np.ndarray] = {}
    theirs: Any = None
    resampled_theirs: Any = None
    if reference is not None:
        theirs = np.ones((1, reference.num_texts))
        resampled_theirs = draw_weights(reference.num_texts, num_resamples, generator)
    for corpus in corpora:
        scores |= measure(corpus, np.ones((1, corpus.num_texts)), reference, theirs)
        weights = draw_weights(corpus.num_texts, num_resamples, generator)
        resampled |= measure(corpus, weights, reference, resampled_theirs)
    result: dict = _to_plain(scores)
    if num_resamples:
        result["intervals"] = _find_intervals(resampled)
    if reference is not None:
        result["reference_figures"] = _to_plain(reference.pool(theirs))
        if num_resamples:
            pooled = reference.pool(resampled_theirs)
            shared = {name: resampled[name] - pooled[name] for name in resampled if name in pooled}
            result["difference_intervals"] = _find_intervals(shared)
    excluded = {name: number for corpus in corpora for name, number in corpus.count_excluded().items()}
    if excluded:
        warnings.warn(f"Texts that are too short for a score are left out of it: {excluded}.", stacklevel=2)
    return result | {"num_texts": max(corpus.num_texts for corpus in corpora), "num_excluded": excluded}


class DrumStructure(evaluate.Metric):
    """See the module's description."""

    def _info(self):
        kinds = {"predictions": "string", "references": "string", "num_steps": "int64", "num_hits": "int64"}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            # A row is a batch, so that there need not be as many references as predictions.
            features=datasets.Features(
                {name: datasets.Sequence(datasets.Value(kinds.get(name, "float64"))) for name in INPUTS}
            ),
        )

    def compute(self, *, predictions=None, references=None, **kwargs):
        """The scores of what was added, and of what is given; see the description."""
        inputs = {name: kwargs.pop(name, None) for name in INPUTS[2:]}
        if self.writer is None and all(values is None or not len(values) for values in (predictions, inputs["nll"])):
            raise ValueError("`predictions` or `nll` must be given; got neither.")
        return super().compute(predictions=predictions, references=references, **inputs, **kwargs)

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Add some texts, or what they cost."""
        for name in kwargs:
            if name not in INPUTS:
                raise TypeError(f"`{name}` must be among {', '.join(INPUTS)}; it is not.")
        values = {"predictions": predictions, "references": references, **kwargs}
        batch = {name: [] if values.get(name) is None else list(values[name]) for name in INPUTS}
        for name, texts in (("predictions", predictions), ("references", references)):
            check_texts(name, texts)
        super().add_batch(**{name: [value] for name, value in batch.items()})

    def add(self, *, prediction=None, reference=None, **kwargs):
        """Add one text, or what it costs."""
        single = {"predictions": prediction, "references": reference, **kwargs}
        self.add_batch(**{name: [value] for name, value in single.items() if value is not None})

    def _compute(
        self,
        predictions,
        references,
        nll,
        separator_nll,
        num_steps,
        velocity_errors,
        timing_errors,
        num_hits,
        train_texts=None,
        num_resamples=1000,
        seed=0,
        **options,
    ):
        batches = (predictions, references, nll, separator_nll, num_steps, velocity_errors, timing_errors, num_hits)
        joined = ([value for batch in column for value in batch] for column in batches)
        inputs = dict(zip(INPUTS, joined, strict=True))
        check_texts("train_texts", train_texts)
        _check({**options, "num_resamples": num_resamples}, inputs)
        corpora = []
        if inputs["nll"]:
            corpora.append(sum_bits(inputs["nll"], inputs["separator_nll"], inputs["num_steps"]))
        if inputs["num_hits"]:
            corpora.append(sum_expression(*(inputs[name] for name in EXPRESSION)))
        if inputs["predictions"]:
            corpora.append(sum_texts(inputs["predictions"], train_texts, **options))
        reference = sum_texts(inputs["references"], train_texts, **options) if inputs["references"] else None
        return _report(corpora, reference, num_resamples, seed)
