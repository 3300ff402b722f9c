"""Compares RefT with a fine-tuned Mask2Former at K shots, over several draws of the shots, on refshapes.

    accelerate launch examples/reft/reproduce.py reft/reproduce [--shots '[5]' --seeds '[0]']

Base models are trained first: a trunk, a RefT, from which Mask2Former (without support), RefT, and RefT with a cosine
and a prototype head go on for the same number of steps. Then each setting of the paper runs for each K and each
draw: FSIS, gFSIS, iFSIS, and a prototype head without any training. Every run is kept in `output_dir`; started again,
the script goes on where it was. The results go to `docs/results` (see `results.py`).
"""

import shutil
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path

from results import Run, write_results

from decahub.evaluation import run_once
from decahub.procedures import reft
from decahub.training import argument, load_recipe


TRUNK = "trunk"
# For each base model, its own arguments.
BASES: dict[str, dict] = {
    TRUNK: {},
    "mask2former": {"use_support": False},
    "reft": {},
    "reft-cosine": {"config": {"classifier": "cosine"}},
    "reft-prototype": {"config": {"classifier": "prototype"}},
}
# For each arm after base training: its stage, its base model, and its own arguments.
ARMS = {
    "fsis-mask2former": ("fsis", "mask2former", {"use_support": False, "freeze": "nothing"}),
    "fsis-reft": ("fsis", "reft", {}),
    "gfsis-mask2former": ("gfsis", "mask2former", {"use_support": False, "freeze": "nothing"}),
    "gfsis-reft": ("gfsis", "reft", {}),
    "ifsis-reft": ("ifsis", "reft-cosine", {"projection_factor": 0.1}),
    "ifsis-reft-no-distillation": ("ifsis", "reft-cosine", {"projection_factor": 0.1, "distill": False}),
}
UNTRAINED = {"prototype": False, "prototype-shuffled": True}


@dataclass
class Arguments:
    arms: list[str] = argument([*ARMS, *UNTRAINED], "Arms to run now; results hold whatever has been run.")
    shots: list[int] = argument([1, 5, 10], "Values of K.")
    seeds: list[int] = argument([0, 1, 2, 3, 4], "One draw of the shots for each seed.")
    base_models: dict = argument({}, "Folders of base models that are trained already, by name.")
    shared: dict = argument({}, "Arguments of all runs (`decahub.procedures.reft`).")
    base: dict = argument({}, "Further arguments of base training.")
    further_base: dict = argument({}, "Those that differ where base training goes on from the trunk.")
    few_shot: dict = argument({}, "Further arguments after base training.")
    output_dir: str = argument("runs/reproduce-reft", "Folder of the runs.")
    results_dir: str = argument("docs/results", "Folder of the results.")


def build_arguments(arguments: Arguments, folder: Path, **own) -> reft.Arguments:
    return reft.Arguments(**{**arguments.shared, **own, "output_dir": str(folder)})


@cache
def load_splits(dataset: str, data_dir: str | None, novel_classes: tuple[str, ...]) -> reft.FewShotSplits:
    return reft.load_data(reft.Arguments(dataset=dataset, data_dir=data_dir, novel_classes=list(novel_classes)))


def find_splits(run: reft.Arguments) -> reft.FewShotSplits:
    return load_splits(run.dataset, run.data_dir, tuple(run.novel_classes))


def execute(run: reft.Arguments, model_folder: Path | None = None) -> dict:
    outcome = reft.run(run, find_splits(run))
    if model_folder is not None:
        outcome.result.model.save_pretrained(model_folder)
        outcome.processor.save_pretrained(model_folder)
    return {**outcome.measurement.scores, "minutes": outcome.result.minutes, "steps": outcome.result.step}


def train_base(name: str, arguments: Arguments) -> Path:
    """Folder of a base model, trained unless it is there."""
    if name in arguments.base_models:
        return Path(arguments.base_models[name])
    folder = Path(arguments.output_dir) / f"base-{name}"
    own = dict(arguments.base)
    if name != TRUNK:
        own |= {"config": {}, **arguments.further_base, "pretrained": str(train_base(TRUNK, arguments))}
    run = build_arguments(arguments, folder, **{**own, **BASES[name]})
    run_once(folder, partial(execute, run, folder / "model"))
    return folder / "model"


def run_arm(arm: str, num_shots: int, seed: int, arguments: Arguments) -> dict:
    """Scores of one arm with one draw of the shots."""
    folder = Path(arguments.output_dir) / f"{arm}-k{num_shots}-seed{seed}"
    stage, base, own = ARMS.get(arm, ("fsis", "reft-prototype", {}))
    own = {**arguments.few_shot, **own, "stage": stage, "num_shots": num_shots, "shot_seed": seed, "seed": seed}
    run = build_arguments(arguments, folder, **own, pretrained=str(train_base(base, arguments)))

    def compute() -> dict:
        if arm in UNTRAINED:
            processor, splits = reft.build_processor(run), find_splits(run)
            return reft.measure_without_training(run, splits, processor, is_shuffled=UNTRAINED[arm]).scores
        scores = execute(run)
        shutil.rmtree(folder)  # checkpoints
        return scores

    return run_once(folder, compute)


def main():
    arguments = load_recipe(Arguments)
    known = {item.name for item in fields(reft.Arguments)}
    for group in ("shared", "base", "further_base", "few_shot"):
        unknown = set(getattr(arguments, group)) - known
        if unknown:
            raise ValueError(
                f"`{group}` must hold arguments of `decahub.procedures.reft`; got {sorted(unknown)[0]!r}."
            )
    runs = []
    # Seed by seed, so that a run that is cut short has compared something.
    for seed in arguments.seeds:
        for num_shots in arguments.shots:
            for arm in arguments.arms:
                scores = run_arm(arm, num_shots, seed, arguments)
                runs.append(Run(arm, num_shots, seed, scores))
                print(f"{arm:28} K={num_shots:2} seed {seed} nAP {100 * scores['nAP']:.2f}", flush=True)
    dataset = arguments.shared.get("dataset", "refshapes")
    bases = {
        name: run_once(Path(arguments.output_dir) / f"base-{name}", dict)
        for name in BASES
        if (Path(arguments.output_dir) / f"base-{name}" / "run.json").is_file()
    }
    write_results(Path(arguments.results_dir), dataset, runs, bases)


if __name__ == "__main__":
    main()
