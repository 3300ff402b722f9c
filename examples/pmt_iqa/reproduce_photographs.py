"""Compares PMT-IQA, trained on photographs with scores of people, with simpler ways to predict these scores.

    accelerate launch examples/pmt_iqa/reproduce_photographs.py pmt_iqa/reproduce_photographs

The strongest of them is a ridge on the same frozen backbone. Each run is kept in `output_dir`; started again, the
script goes on where it was. The result goes to `docs/results/pmt_iqa_photographs.json`, after each model anew.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from baselines import build_ridge, predict_by_brisque, predict_by_statistics, predict_source_means

from decahub import load_metric
from decahub.evaluation import Comparison, build_row, run_once, write_comparison
from decahub.hub import CardArguments
from decahub.procedures import pmt_iqa
from decahub.training import argument, load_recipe


METRICS = {"srcc": "SRCC", "srcc_within": "SRCC within sources", "plcc": "PLCC"}
TRAINED, SCRATCH = "PMT-IQA on a frozen backbone", "PMT-IQA, ResNet-18 from scratch"
RIDGE, RANDOM_RIDGE = "ridge on the frozen backbone", "ridge on a random backbone"
CLAIM = "PMT-IQA on a frozen backbone predicts scores of people better than a ridge on the same backbone"


@dataclass
class RecipeArguments(CardArguments, pmt_iqa.Arguments):
    """What the recipe of a single model holds."""


@dataclass
class Arguments:
    recipe: str = argument("pmt_iqa/biq2021", "Recipe of the model that is trained.")
    backbone_weights: str | None = argument(None, "Weights of its backbone; by default those of the recipe.")
    scratch: dict = argument({}, "Arguments of the model from scratch that differ from those of the recipe.")
    shared: dict = argument({}, "Arguments of all runs that differ from those of the recipe.")
    seeds: list[int] = argument([0, 1, 2], "One run of each model for each seed.")
    output_dir: str = argument("runs/pmt-iqa-photographs", "Folder of the runs.")
    results: str = argument("docs/results/pmt_iqa_photographs.json", "File of the result.")


def build_arguments(arguments: Arguments, seed: int = 0, folder: Path | None = None, **own) -> pmt_iqa.Arguments:
    recipe = load_recipe(RecipeArguments, [arguments.recipe])
    run = pmt_iqa.Arguments(**{item.name: getattr(recipe, item.name) for item in fields(pmt_iqa.Arguments)})
    if arguments.backbone_weights is not None:
        own = {"backbone_weights": arguments.backbone_weights, **own}
    return replace(run, seed=seed, output_dir=str(folder or arguments.output_dir), **{**arguments.shared, **own})


def train(arguments: Arguments, seed: int, folder: Path, **own) -> dict:
    """Scores of one run, whose model is kept."""
    run = build_arguments(arguments, seed, folder, **own)
    outcome = pmt_iqa.run(run)
    outcome.result.model.save_pretrained(folder / "model")
    outcome.processor.save_pretrained(folder / "model")
    return {**outcome.measurement.scores, "minutes": outcome.result.minutes, "steps": outcome.result.step}


def measure_baseline(predict: Callable, splits: pmt_iqa.QualitySplits) -> dict:
    """Scores of what a baseline predicts; a constant has no correlation."""
    test = splits.evaluation
    scores = load_metric("image_quality").compute(
        predictions=predict(splits.train, test), references=test["score"], sources=test["source"]
    )
    return {name: scores[name] for name in METRICS if math.isfinite(scores.get(name, math.nan))}


def main():
    arguments = load_recipe(Arguments)
    base = build_arguments(arguments)
    splits = pmt_iqa.load_splits(base)
    root = Path(arguments.output_dir)
    baselines = {
        "mean of the source": predict_source_means,
        "six statistics and an SVM": predict_by_statistics,
        RIDGE: build_ridge(base),
        RANDOM_RIDGE: build_ridge(replace(base, backbone_weights=None)),
    }
    if find_spec("brisque") is not None:
        baselines["BRISQUE, trained by its authors"] = predict_by_brisque
    rows = []
    for name, predict in baselines.items():
        folder = root / name.replace(",", "").replace(" ", "-")
        scores = run_once(folder, partial(measure_baseline, predict, splits))
        rows += [
            build_row(name, base.dataset, metric, [scores[key]], split=base.eval_split)
            for key, metric in METRICS.items()
            if key in scores
        ]
    for name, own in ((TRAINED, {}), (SCRATCH, {"backbone_weights": None, **arguments.scratch})):
        runs = []
        for seed in arguments.seeds:
            folder = root / f"{'trained' if name == TRAINED else 'scratch'}-seed{seed}"
            runs.append(run_once(folder, partial(train, arguments, seed, folder, **own)))
            print(f"{name:32} seed {seed} SRCC {runs[-1]['srcc']:.3f}", flush=True)
        minutes = sum(run["minutes"] for run in runs)
        facts = {"split": base.eval_split, "steps": runs[0]["steps"], "minutes": minutes}
        rows += [
            build_row(name, base.dataset, metric, [run[key] for run in runs], arguments.seeds, **facts)
            for key, metric in METRICS.items()
            if all(key in run for run in runs)
        ]
        verdict = write_comparison(
            arguments.results,
            method="pmt_iqa",
            claim=CLAIM,
            comparisons=[Comparison(base.dataset, METRICS[key], TRAINED, RIDGE) for key in ("srcc", "srcc_within")],
            rows=rows,
        )
        print(f"{CLAIM}: {verdict}", flush=True)


if __name__ == "__main__":
    main()
