"""Compares EMO-1M with a peer of equal size, from random weights under one small budget and several seeds.

    accelerate launch examples/emo/reproduce.py examples/emo/reproduce.yaml

Every network sees the same batches in the same order with the same recipe. Each run is kept in `output_dir`; started
again, the script goes on where it was. The result goes to `docs/results/emo.json`.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import nn
from torch.nn import functional
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from decahub import EmoConfig, EmoForImageClassification, EmoImageProcessor
from decahub.data import InMemoryDataset, SeededTransform, image_classification, load_dataset
from decahub.evaluation import evaluate_model, write_comparison, write_json
from decahub.models.emo.optimization import build_parameter_groups
from decahub.training import (
    LoopArguments,
    Update,
    argument,
    load_recipe,
    train,
)


EMO = "emo-1m"
# Top-1 on ImageNet-1k, 224 pixels.
PAPER = {EMO: (71.5, "EMO, release table"), "mobilevit_xxs": (69.0, "MobileViT, arXiv 2110.02178, table of variants")}


@dataclass
class Arguments(LoopArguments):
    dataset: str = argument("cifar10", "Name of the dataset.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    peer: str = argument("mobilevit_xxs", "Network of timm to compare with.")
    seeds: list[int] = argument([0, 1, 2], "One run of each network for each seed.")
    label_smoothing: float = argument(0.1, "Label smoothing of the loss.")
    config: dict = argument({}, "Fields of EmoConfig to change.")
    processor: dict = argument({}, "Attributes of EmoImageProcessor to change.")
    max_train_samples: int | None = argument(None, "Train on only so many rows.")
    max_eval_samples: int | None = argument(None, "Evaluate only so many rows.")
    results: str = argument("docs/results/emo.json", "File of the result.")


def build_model(name: str, label_names: list[str], config: dict):
    labels = {"id2label": dict(enumerate(label_names)), "label2id": {label: i for i, label in enumerate(label_names)}}
    if name == EMO:
        return EmoForImageClassification(EmoConfig.from_variant("1m", **labels, **config))
    model = TimmWrapperForImageClassification(TimmWrapperConfig(architecture=name, **labels))
    # One halving less, as EMO's `stem_stride=1`: at 32 pixels the published stride leaves a single pixel.
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.stride = (1, 1)
    return model


def run(name: str, seed: int, arguments: Arguments, splits) -> dict:
    """Accuracy of one network after one run; a finished run is not repeated."""
    folder = Path(arguments.output_dir) / f"{name}-seed{seed}"
    record = folder / "run.json"
    if record.exists():
        return json.loads(record.read_text())
    set_seed(seed)
    processor = EmoImageProcessor(**arguments.processor)
    rows = splits["train"].select(
        range(min(arguments.max_train_samples or len(splits["train"]), len(splits["train"])))
    )
    transform = image_classification.build_train_transform(processor, "crop_flip")
    dataset = SeededTransform(
        InMemoryDataset(rows, image_classification.decode_row, "Decoding images"), transform, seed
    )
    model = build_model(name, rows.features["label"].names, arguments.config)
    optimizer = torch.optim.AdamW(build_parameter_groups(model, arguments.weight_decay), lr=arguments.learning_rate)

    def step(model, batch):
        logits = model(pixel_values=batch["pixel_values"]).logits
        return {"loss": functional.cross_entropy(logits, batch["labels"], label_smoothing=arguments.label_smoothing)}

    run_arguments = type(arguments)(**{**vars(arguments), "seed": seed, "output_dir": str(folder)})
    update = Update(optimizer, step, scheduler=arguments.build_scheduler)
    result = train(model, update, dataset, run_arguments, collate_fn=image_classification.collate)
    scores = evaluate_model(
        result.model,
        processor,
        splits["test"],
        "image-classification",
        batch_size=arguments.per_device_eval_batch_size,
        limit=arguments.max_eval_samples,
    )
    outcome = {
        "accuracy": 100 * scores["accuracy"],
        "minutes": result.minutes,
        "steps": result.step,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    write_json(record, outcome)
    return outcome


def summarize(name: str, runs: list[dict], arguments: Arguments) -> dict:
    accuracies = [run["accuracy"] for run in runs]
    paper, source = PAPER.get(name, (None, None))
    return {
        "model": name,
        "dataset": arguments.dataset,
        "split": "test",
        "checkpoint": "last step",
        "metric": "top-1 accuracy (%)",
        "value": statistics.mean(accuracies),
        "spread": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "n": len(accuracies),
        "seeds": arguments.seeds,
        "runs": accuracies,
        "steps": runs[0]["steps"],
        "batch_size": arguments.per_device_train_batch_size,
        "num_parameters": runs[0]["num_parameters"],
        "paper": paper,
        "paper_source": source,
        "minutes": sum(run["minutes"] for run in runs),
    }


def judge(ours: dict, peer: dict) -> str:
    """Whether EMO is ahead, as in the papers, by more than two standard errors of the difference."""
    gap = ours["value"] - peer["value"]
    if ours["n"] < 2:
        return f"one run only: gap {gap:+.1f} points, no verdict"
    error = ((ours["spread"] ** 2 + peer["spread"] ** 2) / ours["n"]) ** 0.5
    if abs(gap) <= 2 * error:
        return f"undecided here: gap {gap:+.1f} points, within two standard errors ({2 * error:.1f})"
    return (
        f"{'holds' if gap > 0 else 'does not hold'} here: gap {gap:+.1f} points, two standard errors {2 * error:.1f}"
    )


def main():
    arguments = load_recipe(Arguments)
    splits = load_dataset(arguments.dataset, arguments.data_dir)
    # Seed by seed, so that a run that is cut short has compared something.
    runs = {name: [] for name in (EMO, arguments.peer)}
    for seed in arguments.seeds:
        for name, finished in runs.items():
            finished.append(run(name, seed, arguments, splits))
    ours, peer = (summarize(name, finished, arguments) for name, finished in runs.items())
    claim, verdict = f"EMO-1M is more accurate than {arguments.peer} at equal size", judge(ours, peer)
    write_comparison(arguments.results, method="emo", claim=claim, verdict=verdict, rows=[ours, peer])
    for row in (ours, peer):
        print(
            f"{row['model']:16} {row['value']:.1f} % over {row['n']} seeds: {[round(run, 1) for run in row['runs']]}"
        )
    print(f"{claim}: {verdict}")


if __name__ == "__main__":
    main()
