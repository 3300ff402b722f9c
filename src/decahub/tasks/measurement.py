"""What measuring a model gives: scores, the number of examples behind each, and perhaps a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


Scores = dict[str, float]


@dataclass(frozen=True)
class Report:
    """A table that belongs to a measurement and goes into the model card.

    Args:
        title (`str`): Heading of the table.
        columns (`Sequence[str]`): Names of the columns.
        rows (`Sequence[Sequence]`): One list of values a row, as many as there are columns.
        verdict (`str`, *optional*): What the table shows, in a sentence or two.
        command (`str`, *optional*): Command that made it, if not the one of the measurement.

    Raises:
        ValueError: If there is no title, no column or no row, or if a row has another length.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    verdict: str | None = None
    command: str | None = None

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

    Attributes:
        scores (`dict[str, float]`): The headline first.
        num_rows (`int`): Number of examples that were measured; of a graph, its labeled nodes in the split.
        counts (`dict[str, int]`): Number of examples behind a score, where it is not `num_rows`.
        facts (`dict`): What is needed to measure again, such as the number of training rows behind a probe; stored
            with the dataset in `evaluation.json`.
        report ([`Report`], *optional*): A table beside the scores.
    """

    scores: Scores
    num_rows: int
    counts: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    report: Report | None = None


@dataclass(frozen=True)
class MeasurementContext:
    """How a model is to be measured, beside the rows.

    Args:
        batch_size (`int`): Rows of a forward pass.
        limit (`int`, *optional*): Measure a sample of this many examples instead of all.
        label_names (`Sequence[str]`, *optional*): Classes of the dataset, in the order of their ids.
        train_rows (*optional*): Training split, for tasks that fit something on it.
        facts (`Mapping`): `Measurement.facts` of the measurement to repeat.
        show_progress (`bool`): Whether to show a progress bar.
    """

    batch_size: int = 32
    limit: int | None = None
    label_names: Sequence[str] | None = None
    train_rows: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    show_progress: bool = True


__all__ = ["Measurement", "MeasurementContext", "Report", "Scores"]
