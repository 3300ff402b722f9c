"""Measures a model on a dataset and prints the scores: accuracy of a classifier, or of probes on features.

    python examples/tinymim/evaluate.py --model model_cards/tinymim-mae-teacher-cifar10 [--split test] [--limit 1000]
    python examples/tinymim/evaluate.py --task image-classification --model model_cards/tinymim-student-cifar10-5k

`decahub evaluate` does the same for a folder that knows its own dataset.
"""

from dataclasses import dataclass

import transformers
from transformers import AutoImageProcessor

import decahub  # noqa: F401  (registers the models)
from decahub.data import load_dataset
from decahub.evaluation import evaluate_model
from decahub.evaluation.tasks import get_task
from decahub.training import argument, load_recipe


CHOICES = ("image-feature-extraction", "image-classification", "semantic-segmentation")


@dataclass
class Arguments:
    model: str = argument("model_cards/tinymim-mae-teacher-cifar10", "Model folder or Hub id.")
    task: str = argument("image-feature-extraction", f"What to measure: {', '.join(CHOICES)}.")
    dataset: str = argument("cifar10", "Name of a dataset, or a folder of your own.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    split: str = argument("test", "Split to measure on.")
    limit: int | None = argument(None, "Measure at most this many rows.")
    num_fit_rows: int | None = argument(None, "Training rows that probes are fitted on; by default the task's 6000.")
    batch_size: int = argument(64, "Rows of one forward pass.")


def main():
    arguments = load_recipe(Arguments)
    task = get_task(arguments.task)
    splits = load_dataset(arguments.dataset, arguments.data_dir, family=task.family)
    processor = AutoImageProcessor.from_pretrained(arguments.model)
    model = getattr(transformers, task.model_class).from_pretrained(arguments.model)
    scores = evaluate_model(
        model,
        processor,
        splits[arguments.split],
        arguments.task,
        batch_size=arguments.batch_size,
        limit=arguments.limit,
        train_dataset=splits["train"],
        num_fit_rows=arguments.num_fit_rows,
    )
    for name, value in scores.items():
        print(f"{name:24} {value:.4f}")


if __name__ == "__main__":
    main()
