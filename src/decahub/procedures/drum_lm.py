"""Drum LM: fine-tune a language model on drum grooves, with or without adapters, or train a small one from scratch.

from decahub.procedures import drum_lm

outcome = drum_lm.run(drum_lm.Arguments(dataset="groove", max_steps=100, output_dir="runs/drums"))
print(outcome.measurement.scores)
"""

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from transformers import CONFIG_MAPPING, AutoTokenizer, PreTrainedModel, pipeline

from decahub import DrumLmConfig, DrumLmForCausalLM, DrumLmProcessor
from decahub.data import SeededTransform, drum_generation
from decahub.models.drum_lm.backbone import split_gguf_path
from decahub.models.drum_lm.configuration_drum_lm import NUM_COLUMNS, VARIANTS
from decahub.models.drum_lm.optimization import build_parameter_groups, training_step
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from decahub.options import check_options
from decahub.tasks import Measurement
from decahub.training import LoopArguments, TrainingResult, Update, argument, train

from .data_arguments import DataArguments, Splits, load_splits
from .drum_distillation import write_grooves
from .outcome import Outcome, conclude, measure_rows


logger = logging.getLogger(__name__)

TASK = "drum-generation"
PLOT = "continued_groove.png"
WRITTEN = "written"  # folder of what a teacher wrote, in `output_dir`


@dataclass
class Arguments(DataArguments, LoopArguments):
    """Arguments of a run: of the loop, the data, the model and the optimizer."""

    method: ClassVar[str] = "drum_lm"

    dataset: str = argument("groove", "Name of a dataset (`decahub list --datasets`), or your own folder.")
    monitor_split: str | None = argument("validation", "Split that is evaluated during training.")
    backbone: str | None = argument(
        None, "Causal language model to fine-tune: folder, Hub id, or GGUF file; by default a new one of `variant`."
    )
    repo_id: str | None = argument(None, "Name of the backbone that an adapter's configuration holds.")
    reinit: bool = argument(False, "Keep only the architecture of the backbone, with random weights.")
    tokenization: Literal["text", "line"] = argument("line", "Tokens of the language model, or one for each line.")
    adapter: dict | None = argument(None, "Train low-rank adapters with these arguments of peft.LoraConfig.")
    variant: str = argument("small", "Size of a new model.")
    config: dict = argument({}, "Fields of DrumLmConfig to change.")
    processor: dict = argument({}, "Arguments of DrumLmProcessor.")
    augmentation: dict = argument({}, "Arguments of `build_train_transform`: length of the crop, rotation, swaps.")
    teacher: str | None = argument(None, "Model folder or Hub id whose continuations of the grooves are learned too.")
    teacher_base: str | None = argument(None, "Base of a teacher that is an adapter: folder or GGUF file.")
    distillation: dict = argument({}, "Arguments of `write_grooves`: how many continuations, how long, how random.")
    pad_to_multiple_of: int = argument(1, "Pad batches to a multiple of this many tokens: fewer shapes to compile.")
    adam_betas: list[float] = argument([0.9, 0.999], "Betas of AdamW.")

    def __post_init__(self):
        super().__post_init__()
        if self.backbone is None:
            self._check_needs_no_backbone()
        if self.pad_to_multiple_of < 1:
            raise ValueError(f"`pad_to_multiple_of` must be at least 1; got {self.pad_to_multiple_of}.")
        model_type = str((self.config.get("backbone_config") or {}).get("model_type"))
        nested = {"backbone_config": CONFIG_MAPPING[model_type]} if model_type in CONFIG_MAPPING else {}
        check_options("config", self.config, DrumLmConfig, nested=nested)
        check_options("processor", self.processor, DrumLmProcessor, given=["tokenizer", "tokenization"])
        self._check_same_drums()
        transform = drum_generation.build_train_transform
        check_options("augmentation", self.augmentation, transform, given=["processor"])
        if self.adapter and importlib.util.find_spec("peft") is not None:
            from peft import LoraConfig

            check_options("adapter", self.adapter, LoraConfig)
        for name in ("teacher_base", "distillation"):
            if self.teacher is None and getattr(self, name):
                raise ValueError(f"`{name}` must come with a `teacher`; got {getattr(self, name)!r} without one.")
        given = ["rows", "folder", "teacher", "teacher_base", "seed"]
        check_options("distillation", self.distillation, write_grooves, given=given)

    def _check_same_drums(self):
        """Refuse a processor for other drums than the model's, or with velocities that the model does not take."""
        fields = self.config if self.backbone else {**VARIANTS.get(self.variant, {}), **self.config}
        columns = self.processor.get("columns", "six")
        if self.backbone is None and columns in NUM_COLUMNS and columns != fields.get("columns", "six"):
            raise ValueError(
                f"`processor.columns` must be those of the model, {fields.get('columns', 'six')!r}; got {columns!r}. "
                "The variant 'expressive' has nine."
            )
        if bool(self.processor.get("expressive")) != bool(fields.get("expression")):
            raise ValueError(
                f"`processor.expressive` must be true if and only if the model has `config.expression`; got "
                f"{self.processor.get('expressive', False)!r} with {fields.get('expression')!r}."
            )

    def _check_needs_no_backbone(self):
        for name, unset in (("adapter", None), ("repo_id", None), ("reinit", False)):
            if getattr(self, name) != unset:
                raise ValueError(f"`{name}` must come with a `backbone`; got {getattr(self, name)!r} without one.")
        if self.tokenization == "text":
            raise ValueError(
                "`backbone` must be given for the tokenization 'text', which is that of a language model."
            )


def build_processor(arguments: Arguments) -> DrumLmProcessor:
    """The processor of the run, with the tokenizer of the backbone or one token for each line."""
    tokenizer: Any
    if arguments.tokenization == "line" or arguments.backbone is None:
        tokenizer = build_line_tokenizer(NUM_COLUMNS.get(arguments.processor.get("columns", "six"), 6))
    else:
        folder, gguf_file = split_gguf_path(arguments.backbone)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file, trust_remote_code=False)
    return DrumLmProcessor(tokenizer, tokenization=arguments.tokenization, **arguments.processor)


def build_model(arguments: Arguments, processor: DrumLmProcessor) -> DrumLmForCausalLM:
    """A new small model, or one around the backbone, with adapters if there are settings for them."""
    if arguments.backbone is None:
        return DrumLmForCausalLM(DrumLmConfig.from_variant(arguments.variant, **arguments.config))
    return DrumLmForCausalLM.from_backbone(
        arguments.backbone,
        processor,
        reinit=arguments.reinit,
        adapter=arguments.adapter,
        repo_id=arguments.repo_id,
        **arguments.config,
    )


def build_train_dataset(arguments: Arguments, rows: Any, processor: DrumLmProcessor) -> SeededTransform:
    """Grooves, read once and kept in memory, as random excerpts; with a teacher also what it makes of them."""
    grooves = drum_generation.read_grooves(rows, processor)
    if arguments.teacher is not None:
        folder = Path(arguments.output_dir) / WRITTEN
        source = (folder, arguments.teacher, arguments.teacher_base, arguments.seed)
        with PartialState().main_process_first():
            written = write_grooves(grooves, *source, **arguments.distillation)
        grooves += drum_generation.read_grooves(written, processor)
    transform = drum_generation.build_train_transform(processor, **arguments.augmentation)
    return SeededTransform(grooves, transform, arguments.seed)


def build_collate(arguments: Arguments) -> Callable:
    """The function that makes a batch of excerpts."""
    return partial(drum_generation.collate_training, pad_to_multiple_of=arguments.pad_to_multiple_of)


def build_update(arguments: Arguments, model: DrumLmForCausalLM) -> Update:
    """AdamW over what is not frozen, and its schedule."""
    groups = build_parameter_groups(model, arguments.weight_decay)
    betas = (arguments.adam_betas[0], arguments.adam_betas[1])
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=betas, fused=True)
    return Update(optimizer, training_step, scheduler=arguments.build_scheduler)


def measure(arguments: Arguments, model: PreTrainedModel, processor: DrumLmProcessor, rows: Any) -> Measurement:
    """Scores of a model on grooves."""
    return measure_rows(arguments, model, processor, rows, TASK)


def train_model(
    arguments: Arguments, splits: Splits, processor: DrumLmProcessor, model: DrumLmForCausalLM
) -> TrainingResult:
    """Train a model on grooves; it is evaluated during training if `eval_epochs` or `eval_steps` is set."""

    def evaluate(model: PreTrainedModel) -> dict[str, float]:
        return measure(arguments, model, processor, splits.monitor).scores

    return train(
        model,
        build_update(arguments, model),
        build_train_dataset(arguments, splits.train, processor),
        arguments,
        collate_fn=build_collate(arguments),
        evaluate=evaluate if arguments.eval_epochs or arguments.eval_steps else None,
    )


def draw_groove(arguments: Arguments, model: PreTrainedModel, processor: DrumLmProcessor, groove: bytes) -> list[Path]:
    """Plot, in `output_dir`, of a groove that the model continues; none, with a warning, if the bars do not fit."""
    compose = pipeline(TASK, model=model, processor=processor)  # type: ignore[call-overload]
    try:
        answer = compose(groove, bars=processor.bars, seed=arguments.seed, outputs=["png"])[0]
    except ValueError as error:
        logger.warning(f"No plot is drawn: {error}")
        return []
    path = Path(arguments.output_dir) / PLOT
    path.write_bytes(answer["png"])
    return [path]


def run(arguments: Arguments, splits: Splits | None = None) -> Outcome:
    """Train Drum LM and measure it.

    Args:
        arguments ([`Arguments`]): Of the run.
        splits ([`Splits`], *optional*): Your own grooves; by default those that the arguments name.
    """
    set_seed(arguments.seed)
    processor = build_processor(arguments)  # refuses its arguments before data is read
    splits = load_splits(arguments, TASK) if splits is None else splits
    for rows in (splits.evaluation, splits.monitor):  # what cannot be measured is found before training
        drum_generation.read_grooves(rows, processor)
    result = train_model(arguments, splits, processor, build_model(arguments, processor))
    images = []
    if result.is_main_process:
        images = draw_groove(arguments, result.model, processor, splits.evaluation[0]["midi"])
    measure_result = partial(measure, arguments, result.model, processor, splits.evaluation)
    return conclude(arguments, result, processor, measure_result, TASK, images=images)
