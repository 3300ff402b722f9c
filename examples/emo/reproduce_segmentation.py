"""Compares EMO-1M's decode heads and starting points, and a peer with a backbone from ImageNet, on road scenes.

    accelerate launch examples/emo/reproduce_segmentation.py emo/reproduce_segmentation \
        --peer_weights tf_efficientnet_lite0_imagenet.safetensors

Every arm is the recipe of a published model with its own changes; the peer shares EMO's decode head, losses and data
and differs in its backbone alone. Each run is kept in `output_dir` with its model; started again, the script goes on
where it was. The result goes to `docs/results/emo_segmentation.json`.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file
from torch import nn
from transformers import AutoBackbone, TimmBackboneConfig
from transformers.modeling_outputs import BaseModelOutput

from decahub import EmoConfig, EmoForSemanticSegmentation
from decahub.evaluation import Comparison, build_row, run_once, write_comparison
from decahub.hub import CardArguments, save_run
from decahub.procedures import emo
from decahub.procedures.data_arguments import load_splits
from decahub.training import argument, load_recipe, train


METRICS = {"mean_iou": "mIoU (%)", "overall_accuracy": "pixel accuracy (%)"}
SCRATCH, TRANSFER = "EMO-1M, SegFormer head", "EMO-1M from CIFAR-10, SegFormer head"
CLAIM = "On road scenes EMO-1M is more accurate from weights of CIFAR-10 than from random ones"
PEER = "peer"  # key of the arms whose backbone is the peer's


@dataclass
class RecipeArguments(CardArguments, emo.Arguments):
    """What the recipe of a single model holds."""


@dataclass
class Arguments:
    recipe: str = argument("emo/segment", "Recipe that all arms share.")
    arms: dict = argument({}, "For each arm its changes to the recipe, and `peer: true` for the peer's backbone.")
    only: list[str] | None = argument(None, "Arms to run now; by default all.")
    peer_backbone: str = argument("tf_efficientnet_lite0", "Backbone of timm.")
    peer_weights: str | None = argument(None, "Safetensors file of its weights; by default random ones.")
    seeds: list[int] = argument([0], "One run of each arm for each seed.")
    output_dir: str = argument("runs/reproduce-emo-segmentation", "Folder of the runs.")
    results: str = argument("docs/results/emo_segmentation.json", "File of the result.")


class TimmTrunk(nn.Module):
    """A backbone of timm with the interface of EMO's trunk."""

    def __init__(self, name: str, weights: str | None):
        super().__init__()
        config = TimmBackboneConfig(backbone=name, use_pretrained_backbone=False, out_indices=(1, 2, 3, 4))
        self.backbone = AutoBackbone.from_config(config)
        if weights is not None:
            tensors = {f"_backbone.{key}": tensor for key, tensor in load_file(weights).items()}
            missing = self.backbone.load_state_dict(tensors, strict=False).missing_keys
            if missing:
                raise ValueError(f"`peer_weights` must hold all tensors of {name}; {missing[0]!r} is missing.")

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutput:
        feature_maps = self.backbone(pixel_values).feature_maps
        return BaseModelOutput(feature_maps[-1], hidden_states=(pixel_values, *feature_maps))


def build_peer(arguments: Arguments, run: emo.Arguments, labels: list[str]) -> EmoForSemanticSegmentation:
    """EMO's segmenter around the peer's backbone."""
    trunk = TimmTrunk(arguments.peer_backbone, arguments.peer_weights)
    sizes = trunk.backbone.channels
    fields = {**run.config, "decode_head": run.decode_head, "hidden_sizes": sizes, "head_dims": sizes}
    model = EmoForSemanticSegmentation(EmoConfig.from_variant(run.variant, num_labels=len(labels), **fields))
    model.emo = trunk
    return model


def build_arguments(arguments: Arguments, arm: str, seed: int, folder: Path) -> RecipeArguments:
    recipe = load_recipe(RecipeArguments, [arguments.recipe])
    own = {key: value for key, value in arguments.arms[arm].items() if key != PEER}
    for key in ("config", "processor"):
        own[key] = {**getattr(recipe, key), **own.get(key, {})}
    return replace(recipe, seed=seed, output_dir=str(folder), **own)


def run_arm(arguments: Arguments, arm: str, seed: int, folder: Path) -> dict:
    """Scores of one run; the model of EMO stays in its folder, with a card."""
    run = build_arguments(arguments, arm, seed, folder)
    set_seed(seed)
    splits = load_splits(run, run.task)
    processor = emo.build_processor(run)
    is_peer = arguments.arms[arm].get(PEER, False)
    model = build_peer(arguments, run, splits.label_names) if is_peer else emo.build_model(run, splits.label_names)
    result = train(
        model,
        emo.build_update(run, model),
        emo.build_train_dataset(run, splits.train, processor),
        run,
        collate_fn=emo.get_collate(run, splits.label_names),
        evaluate=lambda model: emo.measure(run, model, processor, splits.monitor, splits.label_names).scores,
    )
    started = time.monotonic()
    measurement = emo.measure(run, result.model, processor, splits.evaluation, splits.label_names)
    if not is_peer:
        minutes = (time.monotonic() - started) / 60
        facts = {"task": run.task, "dataset": run.dataset, "split": run.eval_split, "minutes": minutes}
        save_run(run, result, processor, measurement, **facts)
    return {
        **measurement.scores,
        "minutes": result.minutes,
        "steps": result.step,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def main():
    arguments = load_recipe(Arguments)
    base = build_arguments(arguments, next(iter(arguments.arms)), 0, Path(arguments.output_dir))
    rows = []
    for arm in arguments.only or arguments.arms:
        runs = []
        for seed in arguments.seeds:
            folder = Path(arguments.output_dir) / f"{arm.replace(',', '').replace(' ', '-')}-seed{seed}"
            runs.append(run_once(folder, partial(run_arm, arguments, arm, seed, folder)))
            print(f"{arm:40} seed {seed} mIoU {runs[-1]['mean_iou']:.3f}", flush=True)
        facts = {key: runs[0][key] for key in ("steps", "num_parameters")}
        rows += [
            build_row(
                arm,
                base.dataset,
                metric,
                [100 * run[key] for run in runs],
                arguments.seeds,
                split=base.eval_split,
                checkpoint="last step",
                batch_size=base.per_device_train_batch_size,
                minutes=sum(run["minutes"] for run in runs),
                **facts,
            )
            for key, metric in METRICS.items()
        ]
    if arguments.only is None:
        comparisons = [Comparison(base.dataset, METRICS["mean_iou"], TRANSFER, SCRATCH)]
        verdict = write_comparison(arguments.results, method="emo", claim=CLAIM, comparisons=comparisons, rows=rows)
        print(f"{CLAIM}: {verdict}")


if __name__ == "__main__":
    main()
