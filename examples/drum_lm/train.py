"""Fine-tunes a language model on drum grooves, or trains a small one from random weights, from a recipe.

    accelerate launch examples/drum_lm/train.py examples/drum_lm/small.yaml [--learning_rate 1e-3 ...]

`output_dir` then holds `model/`, a folder that `from_pretrained` and `pipeline("drum-generation")` load, with scores
and a model card, beside the checkpoints and the log of the run. Killed and started again, the run goes on where it
was.
"""

import dataclasses
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import set_seed
from transformers import AutoTokenizer, pipeline

from decahub import DrumLmConfig, DrumLmForCausalLM, DrumLmProcessor
from decahub.data import SeededTransform, drum_generation, load_dataset
from decahub.evaluation import build_evaluation, evaluate_model
from decahub.hub import CardArguments, save_model_folder
from decahub.models.drum_lm.backbone import split_gguf_path
from decahub.models.drum_lm.optimization import build_parameter_groups, training_step
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from decahub.tasks import Measurement
from decahub.training import LoopArguments, TrainingResult, Update, argument, load_recipe, train


TASK = "drum-generation"


@dataclass
class TrainArguments(LoopArguments):
    """Arguments of a run: of the loop, the data, the model and the optimizer."""

    dataset: str = argument("groove", "Name of a dataset (`decahub list --datasets`), or a folder of your own.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    eval_split: str = argument("test", "Split that the scores of the model card are measured on.")
    monitor_split: str = argument("validation", "Split that is evaluated in training.")
    max_train_samples: int | None = argument(None, "Train on at most this many grooves.")
    max_eval_samples: int | None = argument(None, "Evaluate at most this many grooves.")
    backbone: str | None = argument(
        None, "Causal language model to fine-tune: folder, Hub id, or GGUF file; by default a new one of `variant`."
    )
    repo_id: str | None = argument(None, "Name of the backbone that an adapter's configuration holds.")
    reinit: bool = argument(False, "Take the architecture of the backbone alone, with random weights.")
    tokenization: Literal["text", "line"] = argument("line", "Tokens of the language model, or one for each line.")
    adapter: dict | None = argument(None, "Train low-rank adapters with these arguments of peft.LoraConfig.")
    variant: str = argument("small", "Size of a new model.")
    config: dict = argument({}, "Fields of DrumLmConfig to change.")
    processor: dict = argument({}, "Arguments of DrumLmProcessor.")
    augmentation: dict = argument({}, "Arguments of `build_train_transform`: length of the crop, rotation, swaps.")
    pad_to_multiple_of: int = argument(1, "Pad batches to a multiple of this length: fewer shapes, fewer kernels.")
    adam_betas: list[float] = argument([0.9, 0.999], "Betas of AdamW.")


@dataclass
class Arguments(CardArguments, TrainArguments): ...


def build_processor(arguments: TrainArguments) -> DrumLmProcessor:
    if arguments.tokenization == "line":
        tokenizer = build_line_tokenizer()
    elif arguments.backbone is None:
        raise ValueError("`backbone` must be given for the tokenization 'text', which is that of a language model.")
    else:
        folder, gguf_file = split_gguf_path(arguments.backbone)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file)
    return DrumLmProcessor(tokenizer, tokenization=arguments.tokenization, **arguments.processor)


def build_model(arguments: TrainArguments, processor: DrumLmProcessor) -> DrumLmForCausalLM:
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


def measure(arguments: TrainArguments, model: Any, processor: DrumLmProcessor, rows: Any) -> Measurement:
    """Scores of a model on grooves."""
    return evaluate_model(
        model,
        processor,
        rows,
        TASK,
        batch_size=arguments.per_device_eval_batch_size,
        limit=arguments.max_eval_samples,
    )


def run_training(
    arguments: TrainArguments, splits: Any, processor: DrumLmProcessor, model: DrumLmForCausalLM
) -> TrainingResult:
    rows = splits["train"]
    if arguments.max_train_samples is not None:
        rows = rows.select(range(min(arguments.max_train_samples, len(rows))))
    grooves = drum_generation.read_grooves(rows, processor)
    transform = drum_generation.build_train_transform(processor, **arguments.augmentation)
    optimizer = torch.optim.AdamW(
        build_parameter_groups(model, arguments.weight_decay),
        lr=arguments.learning_rate,
        betas=tuple(arguments.adam_betas),
        fused=True,
    )

    def evaluate(model: DrumLmForCausalLM) -> dict[str, float]:
        return measure(arguments, model, processor, splits[arguments.monitor_split]).scores

    return train(
        model,
        Update(optimizer, training_step, scheduler=arguments.build_scheduler),
        SeededTransform(grooves, transform, arguments.seed),
        arguments,
        collate_fn=partial(drum_generation.collate_training, pad_to_multiple_of=arguments.pad_to_multiple_of),
        evaluate=evaluate if arguments.eval_epochs or arguments.eval_steps else None,
    )


def draw_groove(
    arguments: TrainArguments, model: DrumLmForCausalLM, processor: DrumLmProcessor, rows: Any
) -> list[Path]:
    """Plot of a groove of the data, its first bars given and the rest written by the model, if that has room."""
    compose = pipeline(TASK, model=model, processor=processor)
    try:
        answer = compose(rows[0]["midi"], bars=processor.bars, seed=arguments.seed, outputs=["png"])[0]
    except ValueError as error:  # no reason to lose the run
        print(f"No plot is drawn: {error}")
        return []
    path = Path(arguments.output_dir) / "continued_groove.png"
    path.write_bytes(answer["png"])
    return [path]


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)

    # To use your own grooves: `dataset: path/to/folder` in the recipe, or build datasets with the same columns here.
    splits = load_dataset(arguments.dataset, arguments.data_dir, family=TASK)
    for name in ("eval_split", "monitor_split"):
        if getattr(arguments, name) not in splits:
            raise ValueError(f"`{name}` must be one of {', '.join(splits)}; got {getattr(arguments, name)!r}.")
    processor = build_processor(arguments)
    model = build_model(arguments, processor)
    result = run_training(arguments, splits, processor, model)
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = measure(arguments, result.model, processor, splits[arguments.eval_split])
    evaluation = build_evaluation(
        measurement,
        task=TASK,
        dataset=arguments.dataset,
        split=arguments.eval_split,
        minutes=(time.monotonic() - started) / 60,
    )
    folder = save_model_folder(
        Path(arguments.output_dir) / "model",
        result.model,
        processor,
        evaluation=evaluation,
        recipe=dataclasses.asdict(arguments),
        train_log=result.train_log,
        training_minutes=result.minutes,
        images=draw_groove(arguments, result.model, processor, splits[arguments.eval_split]),
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
