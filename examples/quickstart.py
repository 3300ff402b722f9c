"""A first walk through decahub, in about three minutes on two CPU cores.

    make quickstart

Classifies real images with a pre-trained model, fine-tunes it on handwritten digits, evaluates, writes a folder in
the form of a Hub repository, loads it back with the Auto class, and shows that nothing changed on the way.
"""

import argparse
import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path


# Nothing here needs a network; ask no server for what lies on the disk.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from accelerate.utils import set_seed
from PIL import Image, ImageDraw
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
from transformers.utils import logging

from decahub.data import InMemoryDataset, SeededTransform, image_classification, load_dataset
from decahub.evaluation import build_evaluation, evaluate_model
from decahub.hub import CardArguments, save_model_folder
from decahub.models.emo.optimization import build_parameter_groups, training_step
from decahub.training import LoopArguments, Update, train


PROJECT = Path(__file__).resolve().parent.parent
PRETRAINED = PROJECT / "model_cards" / "emo-1m-sign-digits"
IMAGES = PROJECT / "examples" / "assets"
TASK = "image-classification"
IMAGE_SIZE = 48
CELL = 120  # pixels of a cell of the contact sheet


@dataclass
class Arguments(CardArguments, LoopArguments):
    """What the fine-tuning reads; a recipe file would fill the same fields."""


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=PROJECT / "out" / "quickstart", help="where results go")
    parser.add_argument("--max_steps", type=int, default=200, help="optimizer steps of the fine-tuning")
    return parser.parse_args()


def announce(text: str) -> None:
    print(f"\n== {text}", flush=True)


def classify_images(output_dir: Path) -> Path:
    """Classifies the images, prints a table, and draws a contact sheet."""
    classify = pipeline(TASK, model=str(PRETRAINED))
    paths = sorted(IMAGES.glob("*.jpg"))
    answers = [answer[0] for answer in classify([str(path) for path in paths], top_k=1)]
    print(f"{'image':28} {'shown':>5} {'seen':>5} {'probability':>12}")
    for path, answer in zip(paths, answers, strict=True):
        print(f"{path.name:28} {get_true_digit(path):>5} {answer['label']:>5} {answer['score']:>12.2f}")
    return draw_contact_sheet(paths, answers, output_dir / "contact_sheet.png")


def get_true_digit(path: Path) -> str:
    return path.stem.removeprefix("sign_digit_").split("_")[0]


def draw_contact_sheet(paths: list[Path], answers: list[dict], target: Path) -> Path:
    columns = 6
    rows = -(-len(paths) // columns)
    sheet = Image.new("RGB", (columns * CELL, rows * (CELL + 20)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (path, answer) in enumerate(zip(paths, answers, strict=True)):
        left, top = index % columns * CELL, index // columns * (CELL + 20)
        sheet.paste(Image.open(path).convert("RGB").resize((CELL - 8, CELL - 8)), (left + 4, top + 4))
        color = "darkgreen" if answer["label"] == get_true_digit(path) else "firebrick"
        draw.text((left + 6, top + CELL), f"{answer['label']}  ({answer['score']:.0%})", fill=color)
    sheet.save(target)
    return target


def fine_tune(output_dir: Path, max_steps: int):
    """Fine-tunes on scikit-learn's digits; returns the model, its processor, the test rows, arguments and result."""
    arguments = Arguments(
        card_title="emo-1m-handwritten-digits",
        card_summary="EMO-1M fine-tuned for a minute on small handwritten digits.",
        card_intended_use="Seeing what decahub writes.",
        card_limits="Trained on 1,437 images of 8 x 8 pixels; no use beyond them was tried.",
        output_dir=str(output_dir / "run"),
        resume_from_checkpoint="none",
        max_steps=max_steps,
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup_ratio=0.1,
        max_grad_norm=5.0,
        logging_steps=20,
    )
    set_seed(arguments.seed)
    splits = load_dataset("sklearn_digits")
    processor = AutoImageProcessor.from_pretrained(PRETRAINED, size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    # The maps of 48 pixels are smaller than the windows that the model was trained with; a window has no weights.
    model = AutoModelForImageClassification.from_pretrained(PRETRAINED, window_sizes=[6, 6, 3, 2])
    transform = image_classification.build_train_transform(processor, "crop_flip", flip_prob=0.0)
    rows = InMemoryDataset(splits["train"], image_classification.decode_row)
    optimizer = torch.optim.AdamW(build_parameter_groups(model, arguments.weight_decay), lr=arguments.learning_rate)
    result = train(
        model,
        Update(optimizer, training_step, scheduler=arguments.build_scheduler),
        SeededTransform(rows, transform, arguments.seed),
        arguments,
        collate_fn=image_classification.collate,
    )
    return result, processor, splits["test"], arguments


def save_and_reload(output_dir: Path, result, processor, test_rows, arguments) -> tuple[Path, dict[str, float], float]:
    """Evaluates, writes the folder, loads it again; returns folder, scores, and the largest change of a logit."""
    started = time.monotonic()
    scores = evaluate_model(result.model, processor, test_rows, TASK).scores
    evaluation = build_evaluation(
        scores,
        task=TASK,
        dataset="sklearn_digits",
        split="test",
        num_rows=len(test_rows),
        minutes=(time.monotonic() - started) / 60,
    )
    folder = save_model_folder(
        output_dir / "emo-1m-handwritten-digits",
        result.model,
        processor,
        evaluation=evaluation,
        recipe=dataclasses.asdict(arguments),
        train_log=result.train_log,
        training_minutes=result.minutes,
    )
    loaded = AutoModelForImageClassification.from_pretrained(folder)
    inputs = AutoImageProcessor.from_pretrained(folder)(test_rows[:8]["image"], return_tensors="pt")
    with torch.inference_mode():
        change = (loaded(**inputs).logits - result.model.eval()(**inputs).logits).abs().max().item()
    return folder, scores, change


def main():
    options = parse_options()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    logging.set_verbosity_error()
    started = time.monotonic()

    announce("Real images, classified by the pre-trained emo-1m-sign-digits")
    sheet = classify_images(options.output_dir)

    announce("Fine-tuning on scikit-learn's handwritten digits")
    result, processor, test_rows, arguments = fine_tune(options.output_dir, options.max_steps)

    announce("Evaluating, writing a Hub folder, loading it back")
    folder, scores, change = save_and_reload(options.output_dir, result, processor, test_rows, arguments)

    announce(f"Done in {time.monotonic() - started:.0f} s")
    print(f"contact sheet    {sheet}")
    print(f"model folder     {folder}")
    print(f"model card       {folder / 'README.md'}")
    print(f"test accuracy    {scores['accuracy']:.1%} of {len(test_rows)} handwritten digits")
    print(f"reloaded model   largest difference of a logit {change:.1e}")


if __name__ == "__main__":
    main()
