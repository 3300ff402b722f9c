"""Measures a model on a dataset and prints the scores.

    python examples/emo/evaluate.py --model model_cards/emo-1m-cifar10 --dataset cifar10 [--split test] [--limit 1000]

`decahub evaluate` does the same for a folder that knows its own dataset.
"""

from dataclasses import dataclass

from transformers import AutoImageProcessor, AutoModelForImageClassification, AutoModelForSemanticSegmentation

import decahub  # noqa: F401  (registers the models)
from decahub.data import DATASETS, load_dataset
from decahub.evaluation import evaluate_model
from decahub.training import argument, load_recipe


AUTO_CLASSES = {
    "image-classification": AutoModelForImageClassification,
    "semantic-segmentation": AutoModelForSemanticSegmentation,
}


@dataclass
class Arguments:
    model: str = argument("model_cards/emo-1m-cifar10", "Model folder or Hub id.")
    task: str = argument("image-classification", f"What to measure: {', '.join(AUTO_CLASSES)}.")
    dataset: str = argument("cifar10", "Name of a dataset, or a folder of your own.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    split: str = argument("test", "Split to measure on.")
    limit: int | None = argument(None, "Measure at most this many rows.")
    batch_size: int = argument(64, "Rows of one forward pass.")


def main():
    arguments = load_recipe(Arguments)
    rows = load_dataset(arguments.dataset, arguments.data_dir, family=arguments.task)[arguments.split]
    processor = AutoImageProcessor.from_pretrained(arguments.model)
    model = AUTO_CLASSES[arguments.task].from_pretrained(arguments.model)
    label_names = list(DATASETS[arguments.dataset].label_names) if arguments.dataset in DATASETS else None
    scores = evaluate_model(
        model,
        processor,
        rows,
        arguments.task,
        batch_size=arguments.batch_size,
        limit=arguments.limit,
        label_names=label_names,
    )
    for name, value in scores.items():
        print(f"{name:24} {value:.4f}")


if __name__ == "__main__":
    main()
