"""The arguments that say what to learn from, and the datasets that they name, checked before a run begins."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decahub.data import DATASETS, get_label_names, load_dataset, node_classification
from decahub.data.family import get_family
from decahub.data.image_files import check_images
from decahub.data.label_names import read_label_names
from decahub.data.sampling import sample_rows
from decahub.data.semantic_segmentation import check_annotations, check_training_annotations
from decahub.training import argument


DATA_DIR_HELP = "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub."
LABEL_NAMES_HELP = "Classes of your own dataset, where its files do not name them."
TRAIN = "train"
MADE_UP_NAME = re.compile(r"(class )?\d+")  # of a class that the data does not name


@dataclass
class DataArguments:
    """Arguments of a run on a dataset of rows; a method's `Arguments` derive from this and from `LoopArguments`.

    Raises:
        ValueError: If a number is out of range, or if a checkpoint would be chosen on the split whose score is shown.
    """

    dataset: str = argument("cifar10", "Name of a dataset (`decahub list --datasets`), or your own folder.")
    data_dir: str | None = argument(None, DATA_DIR_HELP)
    label_names: list[str] = argument([], LABEL_NAMES_HELP)
    eval_split: str = argument("test", "Split that the scores of the model card are measured on.")
    monitor_split: str | None = argument(None, "Split that is evaluated during training; by default `eval_split`.")
    max_train_samples: int | None = argument(None, "Train on a sample of this many rows, balanced over classes.")
    max_eval_samples: int | None = argument(None, "Evaluate on a sample of this many rows, balanced over classes.")

    def __post_init__(self):
        for name in ("max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1; got {value}.")
        metric = getattr(self, "metric_for_best_model", None)
        if metric is not None and self.monitor_split in (None, self.eval_split):
            raise ValueError(
                f"`monitor_split` must be another split than `eval_split` ({self.eval_split!r}) where "
                f"`metric_for_best_model` is set; got {self.monitor_split!r}. No checkpoint is chosen on the split "
                "whose score is shown."
            )
        getattr(super(), "__post_init__", lambda: None)()


@dataclass
class GraphDataArguments:
    """Arguments of a run on one graph. Checkpoints are chosen on validation nodes, scores shown are of test nodes."""

    dataset: str = argument("texas", "Name of a graph (`decahub list --datasets`), or your own folder.")
    data_dir: str | None = argument(None, DATA_DIR_HELP)
    label_names: list[str] = argument([], LABEL_NAMES_HELP)
    split: str = argument("0", "Number or name of the split: which nodes train, validate and test.")


@dataclass(frozen=True)
class Splits:
    """The rows of a run. Build one yourself to train on datasets that you made in Python."""

    train: Any
    evaluation: Any = None  # what the scores of the model card are measured on
    monitor: Any = None  # what is evaluated during training; by default `evaluation`
    label_names: Sequence[str] = ()  # classes in the order of their ids
    fit: Any = None  # what probes are fitted on: the training rows before a sample was drawn

    def __post_init__(self):
        if self.monitor is None:
            object.__setattr__(self, "monitor", self.evaluation)
        if self.fit is None:
            object.__setattr__(self, "fit", self.train)


def load_splits(arguments: DataArguments, family: str, *, needs_labels: bool = True) -> Splits:
    """Load the dataset of a run and check all that can be known before training.

    Args:
        arguments ([`DataArguments`]): Name the dataset, its splits and the size of a sample.
        family (`str`): Kind of data.
        needs_labels (`bool`): Whether images without classes are refused. If not, and there are none, `evaluation` is
            `None`: there is nothing to measure.

    Raises:
        FileNotFoundError: If there is no such dataset.
        ValueError: If a split is missing, or if classes do not agree with the names given.
    """
    splits = load_dataset(arguments.dataset, arguments.data_dir, family=family, needs_labels=needs_labels)
    is_measured = needs_labels or all("label" in rows.column_names for rows in splits.values())
    wanted = {"the training split": TRAIN}
    if is_measured:
        wanted |= {"`eval_split`": arguments.eval_split, "`monitor_split`": arguments.monitor_split or TRAIN}
    for name, split in wanted.items():
        if split not in splits:
            raise ValueError(f"{name} must be one of {', '.join(splits)}; got {split!r}.")
        if read_label_names(splits[split]) != read_label_names(splits[TRAIN]):
            raise ValueError(
                f"the splits of {arguments.dataset!r} must have the same classes; got "
                f"{read_label_names(splits[TRAIN])} in {TRAIN!r} and {read_label_names(splits[split])} in {split!r}."
            )
        if is_measured and arguments.dataset not in DATASETS:
            _check_classes(splits[TRAIN], splits[split], split)
    train = sample_rows(splits[TRAIN], arguments.max_train_samples, getattr(arguments, "seed", 0))
    if not is_measured:
        return Splits(train)
    return Splits(
        train,
        evaluation=splits[arguments.eval_split],
        monitor=splits[arguments.monitor_split or arguments.eval_split],
        label_names=choose_label_names(arguments, splits[TRAIN]),
        fit=splits[TRAIN],
    )


def _check_classes(train: Any, rows: Any, split: str) -> None:
    """Refuse classes that are measured and not learned, which are most often misspelled."""
    if "label" in rows.column_names:
        unknown = sorted(set(rows.unique("label")) - set(train.unique("label")))
        if unknown:
            name = rows.features["label"].int2str(unknown[0])
            raise ValueError(f"the classes of {split!r} must be among those of {TRAIN!r}; got {name!r}.")


def check_splits(arguments: Any, splits: Splits, processor: Any, family: str) -> None:
    """Read the images that a run will use, so that what cannot be used is found before training.

    Those that are measured are prepared as well. Of the annotations to learn from as many are read as
    [`check_training_annotations`] reads.

    Args:
        arguments ([`LoopArguments`]): Of the run.
        splits ([`Splits`]): Datasets of the run.
        processor: Image processor of the run.
        family (`str`): Kind of data.

    Raises:
        ValueError: If an image is damaged, the processor does not fit the images or makes no common size of them, or
            annotations hold something else than the classes.
    """
    kind, unique = get_family(family), {id(rows): rows for rows in (splits.evaluation, splits.monitor)}
    transform = kind.build_eval_transform(processor)
    for rows in unique.values():
        if rows is None:
            continue
        examples = [transform(rows[number]) for number in check_images(rows, "image", "the measured split")]
        sizes = {example["pixel_values"].shape[-2:] for example in examples}
        if len(sizes) > 1 and arguments.per_device_eval_batch_size > 1:
            raise ValueError(
                f"the processor must make one size of the images of a batch; it makes {len(sizes)} of those of the "
                "measured split. Set `size` to a height and a width, or `per_device_eval_batch_size` to 1."
            )
        if family == "semantic-segmentation":
            do_reduce_labels = bool(getattr(processor, "do_reduce_labels", False))
            check_annotations(rows, splits.label_names, "the measured split", do_reduce_labels)
    if family == "semantic-segmentation":
        do_reduce_labels = bool(getattr(processor, "do_reduce_labels", False))
        check_training_annotations(splits.train, splits.label_names, do_reduce_labels)


def choose_label_names(arguments: DataArguments | GraphDataArguments, rows: Any) -> list[str]:
    """Names of the classes: those of the data, or those given where the data has none."""
    given = arguments.label_names
    if not {"label", "labels", "annotation", "annotations"} & set(rows.column_names):
        if given:
            raise ValueError(f"`label_names` must be empty for {arguments.dataset!r}, which has no classes.")
        return []
    own = list(DATASETS[arguments.dataset].label_names) if arguments.dataset in DATASETS else read_label_names(rows)
    if given and own and given != own and not all(MADE_UP_NAME.fullmatch(name) for name in own):
        raise ValueError(
            f"`label_names` must agree with {arguments.dataset!r}, which names its classes {', '.join(own)}; got "
            f"{', '.join(given)}. Leave `label_names` out, or rename the classes in the data."
        )
    return get_label_names(arguments.dataset, rows, given)


def load_graph(arguments: GraphDataArguments) -> tuple[Mapping[str, Any], list[str]]:
    """Load the graph of a run, and the names of its classes ("class 0", ... where nobody names them).

    Raises:
        FileNotFoundError: If there is no such dataset.
        ValueError: If there are several graphs, the split does not exist or lacks labeled nodes, or if classes do not
            agree with the names given.
    """
    graphs = load_dataset(arguments.dataset, arguments.data_dir, family="node-classification")["graph"]
    row = node_classification.get_single_graph(graphs, arguments.dataset)
    number = node_classification.find_split(row, arguments.split)
    for mask in node_classification.MASKS:
        if not row[mask][number].any():
            raise ValueError(
                f"`{mask}` of {arguments.dataset!r}, split {arguments.split!r}, must have at least one node; got none."
            )
        if (row["labels"][row[mask][number]] == node_classification.UNLABELED).all():
            raise ValueError(
                f"`{mask}` of {arguments.dataset!r}, split {arguments.split!r}, must have at least one node with a "
                "label; got none."
            )
    names = [f"class {index}" for index in range(int(row["labels"].max()) + 1)]
    if arguments.label_names or read_label_names(graphs) or arguments.dataset in DATASETS:
        chosen = choose_label_names(arguments, graphs)
        if len(chosen) < len(names):
            raise ValueError(f"`label_names` must name {len(names)} classes; got {len(chosen)}: {', '.join(chosen)}.")
        names = chosen
    return row, names


def name_classes(label_names: Sequence[str]) -> dict[str, dict]:
    """`id2label` and `label2id` of a configuration."""
    return {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
    }
