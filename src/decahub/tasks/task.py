"""What every task can do: load its models, measure them, and show what they answer."""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decahub.registry import TaskEntry

from .measurement import Measurement, MeasurementContext, Scores
from .output_files import OutputFiles


if TYPE_CHECKING:
    import argparse

    import torch
    from transformers import PreTrainedModel

    from decahub.data.family import DataFamily


logger = logging.getLogger(__name__)

# Other kernels or another number of threads flip a borderline prediction: 2 in 1000 cover every machine tried so far.
TOLERANCE = 2e-3
# A sample of n rows is off by at most this many standard errors.
STANDARD_ERRORS = 4
FUSED_DTYPES = ("torch.float32", "torch.float64")
AUTO_PROCESSORS = {
    "image_processor": "AutoImageProcessor",
    "feature_extractor": "AutoFeatureExtractor",
    "processor": "AutoProcessor",
}


class Task:
    """A task: how its models are measured, what a card says of their use, and what `decahub predict` shows.

    A module of `decahub.tasks` derives one class from it, named like the module (`image_classification` ->
    `ImageClassification`). Importing such a module must not import torch: cards and help texts are made from it.
    """

    shares: tuple[str, ...] = ()
    """Scores that are shares of the measured examples; "*" for all."""
    columns: tuple[str, ...] = ()
    """Headers of the table that `decahub predict` prints."""
    input_kind: str = "file"
    """What an input of `decahub predict` is, for its messages."""
    written: tuple[str, ...] = ()
    """Patterns of the names of files that `decahub predict` writes and could take for inputs in a folder."""
    exact_inputs: tuple[str, ...] = ()
    """Inputs of the model that keep their precision whatever that of the model, such as calibrations in float64."""

    def __init__(self, entry: TaskEntry):
        self.entry = entry

    @property
    def pipeline(self) -> str:
        """Name of the pipeline, of transformers or ours, that answers inputs."""
        return self.entry.hub_tag or self.name

    def load(self, source: str | os.PathLike) -> tuple[Any, Any]:
        """Model and processor of a folder or Hub repository, with weights that are checked."""
        from .loading import load_model, load_processor

        processor_class = AUTO_PROCESSORS[self.entry.processor]
        return load_model(source, self.entry.auto_class), load_processor(source, processor_class)

    @property
    def name(self) -> str:
        """Key in `decahub.registry.TASKS`."""
        return self.entry.name

    @property
    def family(self) -> "DataFamily":
        """The data family: transforms, collator, and what else belongs to this kind of rows."""
        from decahub.data.family import get_family

        return get_family(self.entry.family)

    # Measuring

    def predict(self, model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the metric's `add_batch`, for one batch on the device of `model`."""
        raise NotImplementedError

    def get_metric_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        """The arguments of the metric's `compute`."""
        return {}

    def summarize(self, result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
        """The scores in what `compute` returned, the headline first; undefined ones are left out."""
        return {name: value for name, value in result.items() if value is not None}

    def count(self, result: Mapping[str, Any]) -> dict[str, int]:
        """Number of examples behind a score, where it is not that of all."""
        return {}

    def check_labels(self, model: "PreTrainedModel", label_names: Sequence[str] | None) -> list[str]:
        """Names of the classes; refuses a dataset that has others than the model, or in another order.

        A model without names of its own (`LABEL_0`, `LABEL_1`, ...) has only their number checked.
        """
        config: Any = model.config
        names = [config.id2label[index] for index in range(config.num_labels)]
        if label_names is None:
            return names
        if len(label_names) != len(names):
            raise ValueError(
                f"`model` must have as many classes as the dataset, {len(label_names)}; got {len(names)}. "
                "Was it trained on another dataset?"
            )
        if names == [f"LABEL_{index}" for index in range(len(names))]:
            return list(label_names)
        for index, (name, wanted) in enumerate(zip(names, label_names, strict=True)):
            if name != wanted:
                raise ValueError(
                    f"`model.config.id2label` must name the dataset's classes in their order; class {index} is "
                    f"{wanted!r} in the dataset, got {name!r}. Was the model trained on another dataset?"
                )
        return names

    def measure(self, model: "PreTrainedModel", processor: Any, rows: Any, context: MeasurementContext) -> Measurement:
        """Measure a model on rows: predictions in batches, then the metric."""
        names = self.check_labels(model, context.label_names)
        metric = self.build_metric()
        with evaluating(model):
            network, rows, num_rows = fuse_for_inference(model), self.sample_rows(rows, context.limit), 0
            for columns in self.iterate_predictions(network, processor, rows, context):
                metric.add_batch(**columns)
                num_rows += len(next(iter(columns.values())))
        return self.build_measurement(metric.compute(**self.get_metric_options(names)), names, num_rows)

    def sample_rows(self, rows: Any, limit: int | None) -> Any:
        """A sample of `limit` rows, always the same, balanced over classes where rows have one; all by default."""
        from decahub.data.sampling import sample_rows

        return sample_rows(rows, limit)

    def iterate_predictions(
        self, model: "PreTrainedModel", processor: Any, rows: Any, context: MeasurementContext
    ) -> Iterator[dict[str, Any]]:
        """What `predict` gives for each batch of rows."""
        for batch in build_loader(rows, self.family, processor, context.batch_size, context.show_progress):
            yield self.predict(model, processor, move_to_model(batch, model, self.exact_inputs))

    def build_metric(self) -> Any:
        """A new, empty metric."""
        return _get_metric_class(self.entry.metric)(keep_in_memory=True)

    def build_measurement(
        self, result: Mapping[str, Any], label_names: Sequence[str], num_rows: int, **facts: Any
    ) -> Measurement:
        """What a metric returned, as scores with their counts."""
        scores, counts = self.summarize(result, label_names), self.count(result)
        return Measurement(scores, num_rows, {name: n for name, n in counts.items() if name in scores}, facts)

    def tolerance(self, metric: str, value: float, n: int, is_sample: bool) -> float | None:
        """How far a score that is measured again, over `n` examples, may lie from the published `value`.

        `None` where these are a sample of the published examples that cannot tell.
        """
        if not is_sample:
            return TOLERANCE
        if "*" in self.shares or metric in self.shares:
            share = min(max(value, 1 / (n + 1)), n / (n + 1))  # a share of 0 or 1 has an error, too
            return STANDARD_ERRORS * math.sqrt(share * (1 - share) / n)
        return None

    # Cards

    def usage(self, facts: Any, remote: bool, trust: str) -> str:
        """Lines of Python that use a published model.

        Args:
            facts ([`~decahub.hub.card_facts.FolderFacts`]): What the card is made of.
            remote (`bool`): Whether for readers without decahub, by the code in the repository.
            trust (`str`): What to add to the arguments of a call that loads, such as `", trust_remote_code=False"`.
        """
        if not remote:
            return (
                f"from decahub import {facts.architecture}\n\n"
                f'model = {facts.architecture}.from_pretrained("{facts.model_id}")'
            )
        return (
            "from transformers.dynamic_module_utils import get_class_from_dynamic_module\n\n"
            f'model_class = get_class_from_dynamic_module("{facts.class_reference}", "{facts.model_id}")\n'
            f'model = model_class.from_pretrained("{facts.model_id}", trust_remote_code=True)'
        )

    def describe_measurement(self, dataset: Mapping[str, Any]) -> str:
        """What a reader of the scores must know of how they were measured; `dataset` is that of `evaluation.json`."""
        return ""

    def describe_warning(self, config: Mapping[str, Any]) -> str:
        """What a card says first of a model that may do harm, from its `config.json`; empty for others."""
        return ""

    # The command line

    def add_arguments(self, parser: "argparse._ActionsContainer") -> None:
        """Add the options of `decahub predict` for this task."""

    def list_inputs(self, arguments: "argparse.Namespace") -> list[Any]:
        """The inputs of a command, as `answer` takes them; each is checked to exist before anything is loaded."""
        for name in arguments.inputs:
            if not Path(name).is_file():
                problem = "is a folder" if Path(name).is_dir() else "does not exist"
                raise FileNotFoundError(f"`INPUT` must be {self.input_kind}; {name!r} {problem}.")
        return [Path(name) for name in arguments.inputs]

    def drop_written(self, paths: Iterable[Path], folder: str) -> list[str]:
        """The files of a folder without those that were written by this command, by their names."""
        paths = list(paths)
        kept = [str(path) for path in paths if not any(path.match(pattern) for pattern in self.written)]
        if len(kept) < len(paths):
            logger.warning(
                "%d of %d files in %r are left out, which are named like those that this command writes: %s.",
                len(paths) - len(kept), len(paths), folder, ", ".join(self.written),
            )  # fmt: skip
        return kept

    def check_outputs(self, arguments: "argparse.Namespace", files: OutputFiles) -> None:
        """Refuse files that the command is to write beside those of each input, before anything is loaded."""

    def build_predictor(self, arguments: "argparse.Namespace") -> Any:
        """What answers the inputs: by default transformers' or our pipeline, with weights that were checked."""
        from transformers import pipeline

        model, processor = self.load(arguments.model)
        name: Any = self.pipeline  # the types of transformers list only its own tasks
        parts: dict[str, Any] = {self.entry.processor: processor}
        return pipeline(name, model=fuse_for_inference(model), **parts)

    def answer(
        self, predictor: Any, item: Any, arguments: "argparse.Namespace", files: OutputFiles
    ) -> list[Sequence[Any]]:
        """Rows of the printed table for one input.

        Args:
            predictor: What `build_predictor` returned.
            item: One of `list_inputs`.
            arguments (`argparse.Namespace`): Of the command.
            files ([`OutputFiles`]): Names the files that are written.

        Raises:
            ValueError: If the input cannot be used; the command names it and goes on with the others.
        """
        raise NotImplementedError

    def finish(
        self, rows: Sequence[Sequence[Any]], predictor: Any, arguments: "argparse.Namespace", files: OutputFiles
    ) -> Sequence[Sequence[Any]]:
        """Rows of the printed table, from those of all inputs; a task may order them and write files of them all."""
        return rows


@contextmanager
def evaluating(model: "torch.nn.Module") -> Iterator[None]:
    """Run a block with `model` in eval mode, without gradients, on a copy of the random state.

    Afterwards every module is in the mode it was in: a frozen part may have been in eval mode inside a training model.
    """
    import torch

    from decahub.models.shared.modes import evaluation_mode

    with evaluation_mode(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        yield


def fuse_for_inference(model: Any) -> Any:
    """A faster copy of a model that offers `fuse()`, else the model itself; outputs are equal up to rounding."""
    if not hasattr(type(model), "fuse"):
        return model
    # In half precision folded weights would lose digits; those of adapters or that are quantized or offloaded are not
    # the ones to fold.
    is_full = str(model.dtype) in FUSED_DTYPES
    names = ("_hf_peft_config_loaded", "is_quantized", "hf_device_map")
    return model.fuse() if is_full and not any(getattr(model, name, None) for name in names) else model


def move_to_model(
    batch: Mapping[str, Any], model: "PreTrainedModel", exact_inputs: Sequence[str] = ()
) -> dict[str, Any]:
    """A batch with its tensors on the device of `model`, floating ones in its precision but for `exact_inputs`."""
    import torch

    def move(value: Any, is_exact: bool) -> Any:
        if isinstance(value, list):
            return [move(item, is_exact) for item in value]
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(model.device, model.dtype if value.is_floating_point() and not is_exact else None)

    return {name: move(value, name in exact_inputs) for name, value in batch.items()}


def build_loader(rows: Any, family: "DataFamily", processor: Any, batch_size: int, show_progress: bool) -> Any:
    """Batches of rows in their order, through the evaluation transform of their family."""
    import torch
    from torch.utils.data import DataLoader
    from tqdm.auto import tqdm

    from decahub.data import SeededTransform
    from decahub.data.batches import BatchedRows, can_batch

    transform = family.build_eval_transform(processor)
    is_batched = can_batch(processor) and hasattr(transform, "transform_rows")
    loader = DataLoader(
        BatchedRows(rows, transform) if is_batched else SeededTransform(rows, transform),
        batch_size=batch_size,
        collate_fn=family.collate,
        generator=torch.Generator(),  # the loader draws from it where it would draw from the global one
    )
    return tqdm(loader, desc="Evaluating", disable=not show_progress, leave=False)


@cache
def _get_metric_class(name: str) -> Any:
    """The class of a metric: loading it copies its file, which would take longer than to measure a small graph."""
    from decahub.metrics import load_metric

    return type(load_metric(name, keep_in_memory=True))
