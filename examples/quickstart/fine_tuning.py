"""Fine-tunes EMO on scikit-learn's handwritten digits, writes a Hub folder, and loads it back."""

import dataclasses
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from transformers import AutoImageProcessor, AutoModelForImageClassification

from decahub.data import InMemoryDataset, SeededTransform, image_classification, load_dataset
from decahub.evaluation import build_evaluation, evaluate_model
from decahub.hub import CardArguments, save_model_folder
from decahub.models.emo.optimization import build_parameter_groups
from decahub.training import LoopArguments, Update, train


PRETRAINED = Path(__file__).resolve().parents[2] / "model_cards" / "emo-1m-sign-digits"
TASK = "image-classification"
NAME = "emo-1m-handwritten-digits"
IMAGE_SIZE = 48


@dataclass
class Arguments(CardArguments, LoopArguments):
    """What the fine-tuning reads; a recipe file would fill the same fields."""


@dataclass
class FineTuning:
    """What the fine-tuning measured.

    Args:
        folder (`Path`): the model, written as a Hub repository.
        accuracy (`float`): on the test images.
        num_train, num_test (`int`): number of images.
        minutes (`float`): of training.
        losses (`list[tuple[int, float]]`): step and training loss.
        difference (`float`): largest difference of a logit between the trained and the reloaded model.
    """

    folder: Path
    accuracy: float
    num_train: int
    num_test: int
    minutes: float
    losses: list[tuple[int, float]]
    difference: float


def fine_tune(output_dir: Path, max_steps: int) -> FineTuning:
    """Trains from the start, evaluates, writes the folder, loads it again."""
    run_dir = output_dir / f"{NAME}-run"
    shutil.rmtree(run_dir, ignore_errors=True)  # checkpoints of an earlier walk
    arguments = Arguments(
        card_title=NAME,
        card_summary="EMO-1M fine-tuned for a minute on small handwritten digits.",
        card_intended_use="Seeing what decahub writes.",
        card_limits="Learned from 1,437 images of 8 x 8 pixels, and tried on no others.",
        output_dir=str(run_dir),
        resume_from_checkpoint="none",
        max_steps=max_steps,
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup_ratio=0.1,
        max_grad_norm=5.0,
        logging_steps=max(1, max_steps // 20),
    )
    set_seed(arguments.seed)
    splits = load_dataset("sklearn_digits")
    processor = AutoImageProcessor.from_pretrained(PRETRAINED, size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    # At 48 pixels the feature maps are smaller than the windows of the pre-trained model; windows have no weights.
    model = AutoModelForImageClassification.from_pretrained(PRETRAINED, window_sizes=[6, 6, 3, 2])
    transform = image_classification.build_train_transform(processor, "crop_flip", flip_prob=0.0)
    rows = InMemoryDataset(splits["train"], image_classification.decode_row)
    optimizer = torch.optim.AdamW(build_parameter_groups(model, arguments.weight_decay), lr=arguments.learning_rate)
    result = train(
        model,
        Update(optimizer, scheduler=arguments.build_scheduler),
        SeededTransform(rows, transform, arguments.seed),
        arguments,
        collate_fn=image_classification.collate,
    )

    started = time.monotonic()
    measurement = evaluate_model(result.model, processor, splits["test"], TASK)
    evaluation = build_evaluation(
        measurement,
        task=TASK,
        dataset="sklearn_digits",
        split="test",
        minutes=(time.monotonic() - started) / 60,
    )
    folder = save_model_folder(
        output_dir / NAME,
        result.model,
        processor,
        evaluation=evaluation,
        recipe=dataclasses.asdict(arguments),
        train_log=result.train_log,
        training_minutes=result.minutes,
    )
    return FineTuning(
        folder=folder,
        accuracy=measurement.scores["accuracy"],
        num_train=len(rows),
        num_test=len(splits["test"]),
        minutes=result.minutes,
        losses=read_losses(result.train_log),
        difference=compare_logits(result.model, folder, splits["test"][:8]["image"]),
    )


def read_losses(train_log: Path) -> list[tuple[int, float]]:
    """Step and loss of each logged step of a `train_log.jsonl`."""
    entries = [json.loads(line) for line in train_log.read_text().splitlines()]
    return [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]


def compare_logits(model: Any, folder: Path, images: list[Any]) -> float:
    """Largest difference of a logit between a model and what its folder loads."""
    loaded = AutoModelForImageClassification.from_pretrained(folder)
    inputs = AutoImageProcessor.from_pretrained(folder)(images, return_tensors="pt")
    with torch.inference_mode():
        return (loaded(**inputs).logits - model.eval()(**inputs).logits).abs().max().item()
