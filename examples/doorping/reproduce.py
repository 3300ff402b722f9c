"""Compares clean sets, NaiveAttack and DoorPing on two datasets, with controls, transfer and defenses.

    python examples/doorping/reproduce.py doorping/reproduce [--datasets '[fashion_mnist]' --only '[DD]']

Every run is kept in `output_dir`; started again, the script goes on where it was, and a killed distillation ends with
the same images. Two processes may share the work by different `datasets` or `only`. Results go to `docs/results`
(see `results.py`) and hold whatever has been run.
"""

import dataclasses
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from accelerate.utils import set_seed
from results import write_results

from decahub import DistilledDataset
from decahub.evaluation import run_once, write_json
from decahub.evaluation.defenses import DEFENSES
from decahub.procedures import doorping
from decahub.procedures.data_arguments import load_splits
from decahub.procedures.doorping_audit import build_subject, load_images, measure_network, train_network
from decahub.training import argument, load_recipe


CLEAN = "clean"


@dataclass
class Arguments(doorping.Arguments):
    datasets: list[str] = argument([], "Datasets to run now; by default all of the plan.")
    distillers: dict = argument({}, "For each distiller fields of DoorpingConfig.")
    only: list[str] = argument([], "Distillers to run now; by default all of the plan.")
    attacks: dict = argument({}, "For each attack fields of DoorpingConfig.")
    plan: list = argument([], "Which runs: dataset, distiller, attacks, seeds; `iterations` if others.")
    transfer: dict = argument({}, "For each distiller networks that its sets of the first seed are tested on.")
    transfer_epochs: int = argument(100, "Epochs of their training, for DC.")
    transfer_images: int = argument(1000, "Test images of other networks.")
    defense_images: int = argument(2000, "Test images of the defenses.")
    results_dir: str = argument("docs/results", "Folder of the results.")


@dataclass(frozen=True)
class Run:
    """One set: dataset, distiller, attack and seed."""

    dataset: str
    distiller: str
    attack: str
    seed: int
    iterations: int | None = None

    def find_folder(self, output_dir: str) -> Path:
        name = f"{self.distiller}-{self.attack}-seed{self.seed}".lower().replace(", ", "-")
        return Path(output_dir) / Path(self.dataset).name / name


def list_runs(arguments: Arguments) -> list[Run]:
    """All runs of the plan that are wanted now, the clean set of a seed before its attacks."""
    return [
        Run(part["dataset"], part["distiller"], attack, seed, part.get("iterations"))
        for part in arguments.plan
        if part["dataset"] in (arguments.datasets or [part["dataset"]])
        and part["distiller"] in (arguments.only or [part["distiller"]])
        for seed in part["seeds"]
        for attack in sorted(part["attacks"], key=lambda name: name != CLEAN)
    ]


def build_run_arguments(run: Run, arguments: Arguments) -> Arguments:
    """The arguments of one run."""
    config = {**arguments.distillers[run.distiller], **arguments.attacks[run.attack], **arguments.config}
    if run.iterations is not None:
        config["iterations"] = run.iterations
    folder = run.find_folder(arguments.output_dir)
    return dataclasses.replace(
        arguments, dataset=run.dataset, seed=run.seed, output_dir=str(folder / "run"), config=config
    )


def distill_once(run: Run, arguments: Arguments) -> dict:
    """One set, kept as a model folder, and its scores on all test images."""
    folder, started = run.find_folder(arguments.output_dir), time.process_time()
    run_arguments = build_run_arguments(run, arguments)
    splits = load_splits(run_arguments, doorping.FAMILY)
    processor = doorping.build_processor(run_arguments)
    images, labels = doorping.read_images(splits.train, processor)
    set_seed(run.seed)  # networks and images of one seed are the same for all attacks
    model = doorping.build_model(run_arguments, processor, splits.label_names)
    real = doorping.build_real_images(model, images, labels, run.seed)
    result = doorping.distill(run_arguments, model, real)
    result.model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    shutil.rmtree(folder / "run")  # checkpoints of many runs
    return {
        **dataclasses.asdict(run),
        "figures": measure(run, arguments, ["own"], arguments.max_eval_samples)["own"],
        "steps": result.step,
        "minutes": result.minutes,
        "cpu_seconds": time.process_time() - started,
        "num_images": result.model.config.num_images,
    }


def load_set(run: Run, arguments: Arguments) -> DistilledDataset:
    return DistilledDataset.from_pretrained(run.find_folder(arguments.output_dir) / "model")


def measure(run: Run, arguments: Arguments, architectures: list[str], limit: int | None) -> dict[str, dict]:
    """Scores of networks trained on a set, with the same trigger on networks of the clean set of its seed."""
    distilled = load_set(run, arguments)
    clean = dataclasses.replace(run, attack=CLEAN)
    control = None if run.attack == CLEAN else load_set(clean, arguments)
    images, labels = load_images(distilled, run.dataset, arguments.data_dir, "test", limit)
    scores = {}
    for architecture in architectures:
        options = {"architecture": architecture, "seed": run.seed}
        if architecture != "own" and distilled.config.algorithm != "dd":
            options["epochs"] = arguments.transfer_epochs
        network = train_network(distilled, **options)
        trained_control = None if control is None else train_network(control, **options)
        scores[architecture] = measure_network(distilled, network, trained_control, images, labels)
    return scores


def defend(run: Run, arguments: Arguments) -> dict:
    """What each defense says of a set."""
    distilled = load_set(run, arguments)
    images, labels = load_images(distilled, run.dataset, arguments.data_dir, "test", arguments.defense_images)
    subject = build_subject(distilled, lambda given, **options: train_network(given, **options), images, labels)
    results = {}
    for name, defense in DEFENSES.items():
        found = defense(subject)
        results[name] = {"level": found.level, "flagged": found.flagged, "reason": found.reason, **found.scores}
    return {**dataclasses.asdict(run), "defenses": results}


def main():
    arguments = load_recipe(Arguments)
    runs = list_runs(arguments)
    for run in runs:
        run_once(run.find_folder(arguments.output_dir), lambda run=run: distill_once(run, arguments))
        print(f"{run} finished", flush=True)
    first_seeds = {(run.dataset, run.distiller): run.seed for run in reversed(runs)}
    for run in runs:
        if run.seed != first_seeds[run.dataset, run.distiller]:
            continue
        folder = run.find_folder(arguments.output_dir)
        others = arguments.transfer.get(run.distiller, [])
        if others and not (folder / "transfer.json").exists():
            write_json(
                folder / "transfer.json",
                {**dataclasses.asdict(run), "networks": measure(run, arguments, others, arguments.transfer_images)},
            )
        if not (folder / "defenses.json").exists():
            write_json(folder / "defenses.json", defend(run, arguments))
        print(f"{run} tested", flush=True)
    for path in write_results(Path(arguments.output_dir), Path(arguments.results_dir)):
        print(f"Wrote {path}")


if __name__ == "__main__":
    main()
