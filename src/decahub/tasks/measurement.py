"""What measuring a model gives: scores, the number of examples behind each, and perhaps a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


Scores = dict[str, float]


@dataclass(frozen=True)
class Report:
    """A table that belongs to a measurement and goes into the model card.

    Raises:
        ValueError: If there is no title, no column or no row, or if a row has another length.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    verdict: str | None = None  # what the table shows, in a sentence or two
    command: str | None = None  # what made it, if not the command of the measurement

    def __post_init__(self):
        for name in ("title", "columns", "rows"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` of a report must not be empty; got {getattr(self, name)!r}.")
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"`rows` of the report {self.title!r} must have {len(self.columns)} values each; got {len(row)} "
                    f"in row {number}."
                )


@dataclass(frozen=True)
class Measurement:
    """What an evaluation found.

    `facts` is what is needed to measure again, such as the number of training rows behind a probe; it is stored with
    the dataset in `evaluation.json`.
    """

    scores: Scores  # the headline first
    num_rows: int  # examples that were measured; of a graph, its labeled nodes in the split
    counts: Mapping[str, int] = field(default_factory=dict)  # examples behind a score, where it is not `num_rows`
    facts: Mapping[str, Any] = field(default_factory=dict)
    report: Report | None = None  # a table beside the scores


@dataclass(frozen=True)
class MeasurementContext:
    """How a model is to be measured, beside the rows."""

    batch_size: int = 32
    limit: int | None = None  # measure a sample of this many examples
    label_names: Sequence[str] | None = None  # classes of the dataset, in the order of their ids
    train_rows: Any = None  # training split, for tasks that fit something on it
    facts: Mapping[str, Any] = field(default_factory=dict)  # `Measurement.facts` of the measurement to repeat
    show_progress: bool = True
