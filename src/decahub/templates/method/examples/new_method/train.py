"""Trains NewMethod from a recipe.

    accelerate launch examples/new_method/train.py examples/new_method/digits.yaml [--learning_rate 1e-3 ...]

`output_dir` then holds `model/`, a folder that `from_pretrained` loads, with scores and a model card.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed

from decahub import NewMethodConfig, NewMethodForImageClassification, NewMethodImageProcessor
from decahub.data import SeededTransform, get_label_names, image_classification, load_dataset
from decahub.evaluation import build_evaluation, measure_model
from decahub.hub import CardArguments, save_model_folder
from decahub.training import LoopArguments, Update, argument, load_recipe, train


TASK = "image-classification"


@dataclass
class Arguments(CardArguments, LoopArguments):
    dataset: str = argument("sklearn_digits", "Name of a dataset (`decahub list --datasets`), or your own folder.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    eval_split: str = argument("test", "Split that the scores of the model card are measured on.")
    max_eval_samples: int | None = argument(None, "Evaluate at most this many rows.")
    variant: str = argument("tiny", "Published variant of NewMethod.")


def training_step(model, batch):
    return {"loss": model(**batch).loss}


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)

    # To use your own data: `dataset: path/to/folder` in the recipe.
    splits = load_dataset(arguments.dataset, arguments.data_dir, family=TASK)
    label_names = get_label_names(arguments.dataset, splits["train"], [])
    config = NewMethodConfig.from_variant(arguments.variant, id2label=dict(enumerate(label_names)))
    processor = NewMethodImageProcessor(size={"height": config.image_size, "width": config.image_size})
    transform = image_classification.build_train_transform(processor, "crop_flip", flip_prob=0.0)
    train_dataset = SeededTransform(splits["train"], transform, arguments.seed)

    model = NewMethodForImageClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay)
    update = Update(optimizer, training_step, scheduler=arguments.build_scheduler)
    result = train(model, update, train_dataset, arguments, collate_fn=image_classification.collate)
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = measure_model(
        result.model, processor, splits[arguments.eval_split], TASK, limit=arguments.max_eval_samples
    )
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
    )
    print(measurement.scores)
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
