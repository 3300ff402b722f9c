"""Trains EMO from a recipe.

    accelerate launch examples/emo/train.py examples/emo/cifar10.yaml [--learning_rate 1e-3 ...]

`output_dir` then holds `model/`, a folder that `from_pretrained` loads, with scores and a model card, beside the
checkpoints and the log of the run. Killed and started again, the run goes on where it was.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed

from decahub import EmoConfig, EmoForImageClassification, EmoForSemanticSegmentation, EmoImageProcessor
from decahub.data import (
    InMemoryDataset,
    SeededTransform,
    get_label_names,
    image_classification,
    load_dataset,
    semantic_segmentation,
)
from decahub.evaluation import build_evaluation, evaluate_model
from decahub.hub import CardArguments, save_model_folder
from decahub.models.emo.optimization import (
    build_parameter_groups,
    build_segmentation_parameter_groups,
    training_step,
)
from decahub.training import LoopArguments, Update, argument, load_recipe, train


# For each task: kind of data, model, and which parameters decay.
TASKS = {
    "image-classification": (image_classification, EmoForImageClassification, build_parameter_groups),
    "semantic-segmentation": (semantic_segmentation, EmoForSemanticSegmentation, build_segmentation_parameter_groups),
}


@dataclass
class Arguments(CardArguments, LoopArguments):
    task: str = argument("image-classification", f"What to learn: {', '.join(TASKS)}.")
    dataset: str = argument("cifar10", "Name of a dataset (`decahub list --datasets`), or a folder of your own.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    label_names: list[str] = argument([], "Classes of your own data, where its files do not name them.")
    eval_split: str = argument("test", "Split that the scores of the model card are measured on.")
    monitor_split: str | None = argument(None, "Split that is evaluated in training; by default `eval_split`.")
    max_eval_samples: int | None = argument(None, "Evaluate at most this many rows.")
    max_train_samples: int | None = argument(None, "Train on at most this many rows.")
    pretrained: str | None = argument(None, "Model folder or Hub id to start from; by default random weights.")
    variant: str = argument("1m", "Published variant of EMO to start from random weights.")
    decode_head: str = argument("deeplabv3", "Head for semantic segmentation: deeplabv3, pspnet, segformer, sem_fpn.")
    config: dict = argument({}, "Fields of EmoConfig to change.")
    processor: dict = argument({}, "Attributes of EmoImageProcessor to change.")
    augmentation: dict = argument({}, "Arguments of `build_train_transform` of the data module.")


def check_splits(arguments: Arguments, splits) -> None:
    """Refuses a misspelled split now and not after hours of training."""
    for name in ("eval_split", "monitor_split"):
        split = getattr(arguments, name)
        if split is not None and split not in splits:
            raise ValueError(f"`{name}` must be one of {', '.join(splits)}; got {split!r}.")


def build_model(arguments: Arguments, model_class: type, label_names: list[str]):
    fields = {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
        "decode_head": arguments.decode_head,
        **arguments.config,
    }
    if arguments.pretrained is None:
        return model_class(EmoConfig.from_variant(arguments.variant, **fields))
    # The head of another set of classes is replaced.
    return model_class.from_pretrained(arguments.pretrained, ignore_mismatched_sizes=True, **fields)


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)
    data_module, model_class, build_groups = TASKS[arguments.task]

    # To use your own data: `dataset: path/to/folder` in the recipe, or build two datasets with the same columns here.
    splits = load_dataset(arguments.dataset, arguments.data_dir, family=arguments.task)
    check_splits(arguments, splits)
    label_names = get_label_names(arguments.dataset, splits["train"], arguments.label_names)
    rows = splits["train"]
    if arguments.max_train_samples is not None:
        rows = rows.select(range(min(arguments.max_train_samples, len(rows))))
    processor = EmoImageProcessor(**arguments.processor)
    transform = data_module.build_train_transform(processor, **arguments.augmentation)
    train_dataset = SeededTransform(
        InMemoryDataset(rows, data_module.decode_row, "Decoding images"), transform, arguments.seed
    )

    model = build_model(arguments, model_class, label_names)
    groups = build_groups(model, arguments.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate)
    update = Update(optimizer, training_step, scheduler=arguments.build_scheduler)

    def evaluate(model, split=arguments.monitor_split or arguments.eval_split):
        return evaluate_model(
            model,
            processor,
            splits[split],
            arguments.task,
            batch_size=arguments.per_device_eval_batch_size,
            limit=arguments.max_eval_samples,
            label_names=label_names,
        ).scores

    result = train(model, update, train_dataset, arguments, collate_fn=data_module.collate, evaluate=evaluate)
    if not result.is_main_process:
        return

    started = time.monotonic()
    scores = evaluate(result.model, arguments.eval_split)
    num_rows = len(splits[arguments.eval_split])
    evaluation = build_evaluation(
        scores,
        task=arguments.task,
        dataset=arguments.dataset,
        split=arguments.eval_split,
        num_rows=min(num_rows, arguments.max_eval_samples or num_rows),
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
    )
    print({name: round(value, 4) for name, value in scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
