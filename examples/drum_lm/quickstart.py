"""A walk through Drum LM in about two minutes on two CPU cores, without data and without a large model.

    python examples/drum_lm/quickstart.py

Continues a beat with the published small model, writes grooves of it as MIDI files, trains a tiny language model on
those, evaluates, writes a model folder with its card, and composes with what that folder holds.
"""

import argparse
import dataclasses
import os
import time
from pathlib import Path


# Nothing here needs a network; ask no server for what lies on the disk.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from accelerate.utils import set_seed
from train import TASK, Arguments, build_model, build_processor, measure, run_training
from transformers import pipeline
from transformers.utils import logging

import decahub  # noqa: F401  (registers the pipeline)
from decahub.data import load_dataset
from decahub.evaluation import build_evaluation
from decahub.hub import save_model_folder


PROJECT = Path(__file__).resolve().parents[2]
PRETRAINED = PROJECT / "model_cards" / "drum-lm-small-groove"
QUARTERS = ("---oo- ------ ----o- ------", "--o-o- ------ ----o- ---o--", "---oo- ------ ---oo- ------",
            "--o-o- ------ ----o- ------")  # fmt: skip
BEAT = "".join(f"{line}\n" for quarter in QUARTERS for line in quarter.split())
BARS = 8
TINY_BACKBONE = {
    "model_type": "llama",
    "vocab_size": 68,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=PROJECT / "out" / "drums", help="where results go")
    parser.add_argument("--max_steps", type=int, default=100, help="optimizer steps of the training")
    return parser.parse_args()


def announce(text: str) -> None:
    print(f"\n== {text}", flush=True)


def write_answer(answer: dict, stem: Path) -> None:
    """MIDI, plot and sound of one answer."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for kind in ("midi", "png", "wav"):
        stem.with_suffix({"midi": ".mid"}.get(kind, f".{kind}")).write_bytes(answer[kind])
    print(f"{answer['bars']} bars, valid: {answer['valid']}, log probability {answer['log_prob']:.1f}: {stem}.mid")


def write_grooves(compose, folder: Path) -> None:
    """A dataset of the model's own grooves: a folder for each split."""
    for split, count in (("train", 24), ("validation", 4), ("test", 4)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        answers = compose(BEAT * 2, bars=BARS, num_return_sequences=count, seed=count, outputs=["midi"])
        for number, answer in enumerate(answers):
            (folder / split / f"{number:02}.mid").write_bytes(answer["midi"])


def train_tiny_model(dataset: Path, output_dir: Path, max_steps: int) -> Path:
    """Trains a tiny model and returns its folder."""
    arguments = Arguments(
        card_title="drum-lm-tiny",
        card_summary="A tiny language model of drum grooves, trained for a minute.",
        card_intended_use="Seeing what decahub writes.",
        card_limits="Trained on 24 grooves that another model wrote.",
        card_license="apache-2.0",
        dataset=str(dataset),
        config={"backbone_config": TINY_BACKBONE},
        output_dir=str(output_dir),
        lr_scheduler_type="constant",
        learning_rate=3e-3,
        logging_steps=20,
        max_steps=max_steps,
    )
    splits = load_dataset(arguments.dataset, family=TASK)
    set_seed(arguments.seed)
    processor = build_processor(arguments)
    result = run_training(arguments, splits, processor, build_model(arguments, processor))
    started = time.monotonic()
    measurement = measure(arguments, result.model, processor, splits["test"])
    minutes = (time.monotonic() - started) / 60
    print({name: round(value, 3) for name, value in measurement.scores.items()})
    return save_model_folder(
        output_dir / "drum-lm-tiny",
        result.model,
        processor,
        evaluation=build_evaluation(measurement, task=TASK, dataset=arguments.dataset, split="test", minutes=minutes),
        recipe=dataclasses.asdict(arguments),
        train_log=result.train_log,
        training_minutes=result.minutes,
    )


def main():
    options = parse_options()
    logging.set_verbosity_error()
    started = time.monotonic()

    announce("A beat, continued by drum-lm-small-groove")
    compose = pipeline(TASK, model=str(PRETRAINED))
    write_answer(compose(BEAT * 2, bars=BARS, seed=29)[0], options.output_dir / "continued")

    announce("Grooves of that model, a tiny language model trained on them")
    write_grooves(compose, options.output_dir / "grooves")
    folder = train_tiny_model(options.output_dir / "grooves", options.output_dir / "run", options.max_steps)

    announce("Composing with the folder that was written")
    write_answer(pipeline(TASK, model=str(folder))(BEAT * 2, bars=BARS, seed=29)[0], options.output_dir / "composed")

    announce(f"Done in {time.monotonic() - started:.0f} s")
    print(f"model folder     {folder}")
    print(f"model card       {folder / 'README.md'}")


if __name__ == "__main__":
    main()
