"""Compares EMO-1M with a peer of equal size, from random weights under one small budget and several seeds.

    accelerate launch examples/emo/reproduce.py emo/reproduce

Every network sees the same batches in the same order with the same recipe. Each run is kept in `output_dir`; started
again, the script goes on where it was. The result goes to `docs/results/emo.json`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import nn
from torch.nn import functional
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from decahub import EmoConfig, EmoForImageClassification, EmoImageProcessor
from decahub.data import InMemoryDataset, SeededTransform, image_classification, load_dataset
from decahub.evaluation import Comparison, build_row, evaluate_model, run_once, write_comparison
from decahub.models.emo.optimization import build_parameter_groups
from decahub.training import (
    LoopArguments,
    Update,
    argument,
    load_recipe,
    train,
)


EMO = "emo-1m"
ACCURACY = "top-1 accuracy (%)"
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
    max_train_samples: int | None = argument(None, "Train on at most this many rows.")
    max_eval_samples: int | None = argument(None, "Evaluate at most this many rows.")
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


def run(name: str, seed: int, folder: Path, arguments: Arguments, splits) -> dict:
    """Accuracy of one network after one run."""
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
    ).scores
    return {
        "accuracy": 100 * scores["accuracy"],
        "minutes": result.minutes,
        "steps": result.step,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def summarize(name: str, runs: list[dict], arguments: Arguments) -> dict:
    paper, source = PAPER.get(name, (None, None))
    return build_row(
        name,
        arguments.dataset,
        ACCURACY,
        [run["accuracy"] for run in runs],
        arguments.seeds,
        split="test",
        checkpoint="last step",
        steps=runs[0]["steps"],
        batch_size=arguments.per_device_train_batch_size,
        num_parameters=runs[0]["num_parameters"],
        paper=paper,
        paper_source=source,
        minutes=sum(run["minutes"] for run in runs),
    )


def main():
    arguments = load_recipe(Arguments)
    splits = load_dataset(arguments.dataset, arguments.data_dir)
    # Seed by seed, so that a run that is cut short has compared something.
    runs = {name: [] for name in (EMO, arguments.peer)}
    for seed in arguments.seeds:
        for name, finished in runs.items():
            folder = Path(arguments.output_dir) / f"{name}-seed{seed}"
            finished.append(run_once(folder, partial(run, name, seed, folder, arguments, splits)))
    claim = f"EMO-1M is more accurate than {arguments.peer} at equal size"
    verdict = write_comparison(
        arguments.results,
        method="emo",
        claim=claim,
        comparisons=[Comparison(arguments.dataset, ACCURACY, EMO, arguments.peer)],
        rows=[summarize(name, finished, arguments) for name, finished in runs.items()],
    )
    print(f"{claim}: {verdict}")


if __name__ == "__main__":
    main()
