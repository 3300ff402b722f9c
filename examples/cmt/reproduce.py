"""Asks how a detector with two kinds of sensors does without one, after training with masked sensors and without.

    accelerate launch examples/cmt/reproduce.py cmt/reproduce

Both arms of a seed start from the same weights and see the same frames in the same order. Models of both arms are
measured under all failures of sensors; a model without training gives the level of chance. Each run is kept in
`output_dir`; started again, the script goes on where it was. The results go to `docs/results`: `cmt.json`,
`cmt_masked_training.json` and `cmt_sensor_failures.png`.
"""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

from decahub import CmtForObjectDetection3D, CmtProcessor
from decahub.data.driving_scenes import SceneSettings
from decahub.evaluation import (
    Comparison,
    build_row,
    build_sensor_failures,
    measure_sensor_failures,
    run_once,
    write_comparison,
)
from decahub.hub import CardArguments, ModelFolder
from decahub.hub.files import RECIPE, TRAINING_MINUTES
from decahub.procedures import cmt
from decahub.procedures.data_arguments import load_splits
from decahub.training import argument, load_recipe


MASKED, PLAIN, UNTRAINED = "masked training", "plain training", "untrained"
AUGMENTATION = {MASKED: {}, PLAIN: {"camera_mask_prob": 0.0, "lidar_mask_prob": 0.0}}
ALL_WORK, NO_CAMERAS, NO_LIDAR = "none", "no cameras", "no LiDAR"
MAY_DIFFER = ("output_dir", "eval_epochs", "max_eval_samples")  # between runs of one recipe
METRICS = {"mean_ap": "mean AP (%)", "nds": "NDS (%)"}
AP = METRICS["mean_ap"]
ORDER_CLAIM = (
    "After masked-modal training, a detector with all sensors is ahead of one without cameras, this one of one "
    "without LiDAR, and this one of chance"
)
MASKED_CLAIM = "Without masked-modal training, a detector that loses a kind of sensor has less than half of that AP"
NOTE = (
    "Scenes are generated. Average precision takes the place of the recall in the goal: with as "
    "many queries as here, boxes at random places recall some objects."
)


@dataclass
class RecipeArguments(CardArguments, cmt.Arguments):
    """What the recipe of a single model holds."""


@dataclass
class Arguments:
    recipe: str = argument("cmt/driving_scenes", "Recipe of all runs.")
    seeds: list[int] = argument([0, 1, 2], "One run of each arm for each seed.")
    trained: dict = argument({}, "Folders of models that are trained already, by seed: those with masked sensors.")
    max_steps: int | None = argument(None, "Optimizer steps of a run, to try the script; by default as in the recipe.")
    max_eval_samples: int | None = argument(None, "Measure on at most this many frames.")
    output_dir: str = argument("runs/reproduce-cmt", "Folder of the runs.")
    results_dir: str = argument("docs/results", "Folder of the results.")


def build_arguments(arm: str, seed: int, folder: Path, arguments: Arguments) -> cmt.Arguments:
    recipe = load_recipe(RecipeArguments, [arguments.recipe])
    own = cmt.Arguments(**{item.name: getattr(recipe, item.name) for item in fields(cmt.Arguments)})
    return replace(
        own,
        seed=seed,
        max_steps=arguments.max_steps,
        max_eval_samples=arguments.max_eval_samples,
        eval_epochs=None,
        augmentation={**own.augmentation, **AUGMENTATION.get(arm, {})},
        output_dir=str(folder),
    )


def measure(run: cmt.Arguments, model: Any, processor: Any, rows: Any) -> dict[str, dict[str, float]]:
    """Scores under each failure."""
    rows = rows.select(range(min(len(rows), run.max_eval_samples or len(rows))))
    failures = build_sensor_failures(
        rows[0]["cameras"], model.config.modality, num_sensor_beams=SceneSettings().num_beams
    )
    batch_size = run.per_device_eval_batch_size
    measurements = measure_sensor_failures(model, processor, rows, failures, batch_size=batch_size)
    return {
        failure: {score: measurement.scores[score] for score in METRICS}
        for failure, measurement in measurements.items()
    }


def measure_trained(run: cmt.Arguments, folder: Path, rows: Any) -> dict:
    """The record of a run that was made before, by the recipe itself."""
    made = load_recipe(RecipeArguments, [str(folder / RECIPE)])
    for name, value in asdict(run).items():
        if name not in MAY_DIFFER and getattr(made, name) != value:
            raise ValueError(
                f"`trained` must name models of the same recipe; {folder} has {name}={getattr(made, name)!r}, not "
                f"{value!r}."
            )
    model, processor = CmtForObjectDetection3D.from_pretrained(folder), CmtProcessor.from_pretrained(folder)
    last = ModelFolder(folder).train_log[-1]
    return {"failures": measure(run, model, processor, rows), "minutes": last[TRAINING_MINUTES], "steps": last["step"]}


def execute(arm: str, seed: int, folder: Path, arguments: Arguments) -> dict:
    """One run: scores by failure, minutes and steps."""
    run = build_arguments(arm, seed, folder, arguments)
    splits = load_splits(run, cmt.TASK)
    if arm == UNTRAINED:
        set_seed(seed)
        model = cmt.build_model(run, splits.label_names)
        return {"failures": measure(run, model, cmt.build_processor(run, model.config), splits.evaluation)}
    if arm == MASKED and seed in arguments.trained:
        return measure_trained(run, Path(arguments.trained[seed]), splits.evaluation)
    outcome = cmt.run(run, splits)
    scores = measure(run, outcome.result.model, outcome.processor, splits.evaluation)
    return {"failures": scores, "minutes": outcome.result.minutes, "steps": outcome.result.step}


def name_row(arm: str, failure: str) -> str:
    return f"{arm}, {failure if failure != ALL_WORK else 'all sensors'}"


def collect_rows(runs: Mapping[str, list[dict]], dataset: str, arguments: Arguments) -> list[dict]:
    """A row for each arm, failure and metric, and half of the masked arm to compare with."""
    rows = []
    for arm, finished in runs.items():
        facts = {"split": "test"}
        if arm != UNTRAINED:
            facts |= {"steps": finished[0]["steps"], "minutes": sum(run["minutes"] for run in finished)}
        for failure in finished[0]["failures"]:
            for score, metric in METRICS.items():
                values = [100 * run["failures"][failure][score] for run in finished]
                rows.append(build_row(name_row(arm, failure), dataset, metric, values, arguments.seeds, **facts))
    for failure in (NO_CAMERAS, NO_LIDAR):
        halves = [50 * run["failures"][failure]["mean_ap"] for run in runs[MASKED]]
        name = f"half of {name_row(MASKED, failure)}"
        rows.append(build_row(name, dataset, AP, halves, arguments.seeds, split="test"))
    return rows


def write_results(runs: Mapping[str, list[dict]], dataset: str, arguments: Arguments) -> None:
    folder = Path(arguments.results_dir)
    rows = collect_rows(runs, dataset, arguments)
    levels = [name_row(MASKED, failure) for failure in (ALL_WORK, NO_CAMERAS, NO_LIDAR)]
    order = [*levels, name_row(UNTRAINED, ALL_WORK)]
    in_order = [Comparison(dataset, AP, *pair) for pair in pairwise(order)]
    below_half = [
        Comparison(dataset, AP, name_row(PLAIN, failure), f"half of {name_row(MASKED, failure)}", "lower")
        for failure in (NO_CAMERAS, NO_LIDAR)
    ]
    claims = {
        "cmt": (ORDER_CLAIM, in_order, (MASKED, UNTRAINED)),
        "cmt_masked_training": (MASKED_CLAIM, below_half, (PLAIN, "half of")),
    }
    for name, (claim, comparisons, prefixes) in claims.items():
        own = [row for row in rows if row["model"].startswith(prefixes)]
        path = folder / f"{name}.json"
        verdict = write_comparison(path, method="cmt", claim=claim, comparisons=comparisons, rows=own, notes=[NOTE])
        print(f"{claim}: {verdict}")
    draw_failures(folder / "cmt_sensor_failures.png", rows, list(runs[MASKED][0]["failures"]))


def draw_failures(path: Path, rows: list[dict], failures: list[str]) -> None:
    """Bars of both arms for each failure, with the spread over seeds."""
    from matplotlib.figure import Figure

    by_name = {row["model"]: row for row in rows if row["metric"] == AP}
    figure = Figure(figsize=(8, 0.4 * len(failures) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    for offset, arm in ((-0.2, MASKED), (0.2, PLAIN)):
        found = [by_name[name_row(arm, failure)] for failure in failures]
        places = [index + offset for index in range(len(failures))]
        spreads = [row["spread"] or 0 for row in found]
        axes.barh(places, [row["value"] for row in found], 0.38, xerr=spreads, label=arm, error_kw={"lw": 1})
    axes.axvline(by_name[name_row(UNTRAINED, ALL_WORK)]["value"], color="black", lw=0.8, ls=":", label=UNTRAINED)
    axes.set_yticks(range(len(failures)), ["all sensors" if name == ALL_WORK else name for name in failures])
    axes.invert_yaxis()
    axes.set_xlabel(f"{AP}, {len(next(iter(by_name.values()))['runs'])} runs")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    figure.savefig(partial, dpi=110, format="png", metadata={"Software": None})
    partial.replace(path)


def main():
    arguments = load_recipe(Arguments)
    runs: dict[str, list[dict]] = {MASKED: [], PLAIN: [], UNTRAINED: []}
    # Seed by seed, so that a run that is cut short has compared something.
    for seed in arguments.seeds:
        for arm, finished in runs.items():
            folder = Path(arguments.output_dir) / f"{arm.split()[0]}-seed{seed}"
            finished.append(run_once(folder, functools.partial(execute, arm, seed, folder, arguments)))
            scores = finished[-1]["failures"][ALL_WORK]
            print(f"{arm:16} seed {seed} mean AP {100 * scores['mean_ap']:.2f}", flush=True)
    dataset = load_recipe(RecipeArguments, [arguments.recipe]).dataset
    write_results(runs, dataset, arguments)


if __name__ == "__main__":
    main()
