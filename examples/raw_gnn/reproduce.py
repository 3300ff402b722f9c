"""Compares RAW-GNN with five networks on graphs with ten public splits, over several seeds.

    accelerate launch examples/raw_gnn/reproduce.py raw_gnn/reproduce [--datasets '[texas, cora]']

Every run is kept in `output_dir`; started again, the script goes on where it was, and with `--datasets '[]'` it only
writes the results of what is finished. Where a network has a grid of settings, the one with the best mean validation
accuracy on the first splits is used; test nodes are not looked at. Results go to
`docs/results/raw_gnn.json` and its siblings (see `results.py`).
"""

import shutil
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import set_seed
from baselines import NAMES, Baseline, BaselineConfig
from results import COMPILED_LAW, OFFICIAL, TUNED, write_results

from decahub import RawGnnConfig, RawGnnFeatureExtractor, RawGnnForNodeClassification
from decahub.data import load_dataset, node_classification
from decahub.evaluation import run_once, write_json
from decahub.models.raw_gnn.optimization import training_step
from decahub.tasks import evaluate_parts, join_scores
from decahub.training import (
    LoopArguments,
    Update,
    argument,
    load_recipe,
    train,
)


MODELS = (OFFICIAL, TUNED, COMPILED_LAW, *NAMES)
NUM_DRAWS = 8
MAX_SEED = 2**62


@dataclass
class Arguments(LoopArguments):
    datasets: list[str] = argument(["texas"], "Graphs to run now; results hold whatever has been run.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    models: list[str] = argument(list(MODELS), "Networks to run now.")
    splits: list[int] = argument(list(range(10)), "Numbers of the public splits.")
    seeds: list[int] = argument([0, 1, 2], "One run of each split for each seed.")
    tuning_splits: list[int] = argument([0, 1, 2], "Splits whose validation nodes choose among settings.")
    grids: dict = argument({}, "For 'RAW-GNN' and 'baselines' a list of settings, of which one is chosen.")
    official: dict = argument({}, "The authors' settings.")
    results_dir: str = argument("docs/results", "Folder of the results.")


def build_model(name: str, settings: dict, inputs: dict, num_labels: int):
    sizes = {"num_features": inputs["node_features"].shape[1], "num_labels": num_labels}
    config = settings.get("config", {})
    if name in NAMES:
        return Baseline(BaselineConfig(network=name, **sizes, **config))
    variant = "official" if name == OFFICIAL else "paper"
    law = {"walk_sampler": "torch_cluster"} if name == COMPILED_LAW else {}
    return RawGnnForNodeClassification(RawGnnConfig.from_variant(variant, **{**sizes, **config, **law}))


def build_inputs(name: str, settings: dict, row: dict, split: int) -> dict:
    options = {"normalize_features": settings.get("normalize_features", False)}
    if name not in NAMES:
        share = (row["node_features"] != 0).mean()
        options["sparse_features"] = bool(share < 0.1)  # same numbers; bags of words are faster that way
    return node_classification.build_graph_inputs(row, RawGnnFeatureExtractor(**options), split=split)


def train_once(
    name: str, settings: dict, row: dict, split: int, seed: int, folder: Path, arguments: Arguments
) -> dict:
    """Accuracies of one run."""
    set_seed(seed)
    inputs = build_inputs(name, settings, row, split)
    model = build_model(name, settings, inputs, int(row["labels"].max()) + 1)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"], fused=True
    )
    masks = {"validation": inputs["validation_mask"], "test": inputs["test_mask"]}

    def evaluate(model):
        if name == OFFICIAL:  # the authors draw walks for validation and walks for test
            seeds = torch.randint(MAX_SEED, (2,)).tolist()
            parts = [
                join_scores(evaluate_parts(model, {**inputs, "walk_seed": seed}, {part: mask}))
                for seed, (part, mask) in zip(seeds, masks.items(), strict=True)
            ]
            return {**parts[0], **parts[1]}
        return join_scores(evaluate_parts(model, fixed_inputs, masks))

    fixed_inputs = inputs
    if name in (TUNED, COMPILED_LAW):  # the walks of evaluation are the same each time: drawn once
        walks = model.raw_gnn.sample_paths(inputs["edge_index"], len(inputs["labels"]), seed=model.config.walk_seed)
        fixed_inputs = {**inputs, "paths": walks}
    run_arguments = type(arguments)(**{**vars(arguments), "seed": seed, "output_dir": str(folder)})
    result = train(
        model,
        Update(optimizer, training_step),
        [inputs],
        run_arguments,
        collate_fn=lambda rows: rows[0],
        evaluate=evaluate,
    )
    outcome = {
        "validation": 100 * result.metrics["validation_accuracy"],
        "test": 100 * result.metrics["test_accuracy"],
        "steps": result.step,
        "minutes": result.minutes,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    if name in (TUNED, COMPILED_LAW):
        model.config.eval_walks = NUM_DRAWS
        averaged = join_scores(evaluate_parts(model, inputs, masks))
        outcome["test_averaged"] = 100 * averaged["test_accuracy"]
        outcome["validation_averaged"] = 100 * averaged["validation_accuracy"]
    shutil.rmtree(folder)  # checkpoints of hundreds of runs
    return outcome


def choose_settings(name: str, dataset: str, row: dict, arguments: Arguments) -> tuple[int, dict]:
    """Number and content of the settings with the best mean validation accuracy."""
    if name == OFFICIAL:
        return 0, arguments.official
    grid = arguments.grids["baselines" if name in NAMES else TUNED]
    if name == COMPILED_LAW:
        return choose_settings(TUNED, dataset, row, arguments)
    scores = []
    for number, settings in enumerate(grid):
        runs = [
            run_split(dataset, name, number, settings, row, split, 0, arguments) for split in arguments.tuning_splits
        ]
        scores.append(statistics.mean(run["validation"] for run in runs))
    best = scores.index(max(scores))
    return best, grid[best]


def run_dataset(dataset: str, arguments: Arguments) -> None:
    """All runs of one graph, seed by seed, so that a script that is cut short has compared something."""
    row = load_dataset(dataset, arguments.data_dir, family="node-classification")["graph"][0]
    dataset = Path(dataset).name
    chosen = {name: choose_settings(name, dataset, row, arguments) for name in arguments.models}
    for seed in arguments.seeds:
        for name, (number, settings) in chosen.items():
            runs = []
            for split in arguments.splits:
                outcome = run_split(dataset, name, number, settings, row, split, seed, arguments)
                runs.append({"split": split, "seed": seed, **outcome})
            summary = {"model": name, "dataset": dataset, "seed": seed, "settings": settings, "runs": runs}
            write_json(Path(arguments.output_dir) / dataset / f"{describe(name)}-seed{seed}.summary.json", summary)
            print(f"{dataset:12} seed {seed} {name:30} {statistics.mean(run['test'] for run in runs):.2f}", flush=True)


def run_split(
    dataset: str, name: str, setting: int, settings: dict, row: dict, split: int, seed: int, arguments: Arguments
) -> dict:
    """Accuracies of one run; a finished run is not repeated."""
    folder = Path(arguments.output_dir) / dataset / f"{describe(name)}-setting{setting}-split{split}-seed{seed}"
    return run_once(folder, partial(train_once, name, settings, row, split, seed, folder, arguments))


def describe(name: str) -> str:
    """Name of a network for a path."""
    return name.replace(", ", "-").replace(" ", "-").replace("'", "").lower()


def main():
    arguments = load_recipe(Arguments)
    for dataset in arguments.datasets:
        run_dataset(dataset, arguments)
    write_results(Path(arguments.output_dir), Path(arguments.results_dir))


if __name__ == "__main__":
    main()
