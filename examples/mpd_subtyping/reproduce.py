"""Power and false positives of the verdict, recovery of known subtypes beside common methods, and a real table.

    python examples/mpd_subtyping/reproduce.py mpd_subtyping/reproduce

Each run is one line of `runs.jsonl` in `output_dir`; started again, the script goes on where it was. Results go to
`docs/results/mpd_subtyping.json` (recovery), `mpd_subtyping_power.json`, `mpd_subtyping_smile_gan.json`, and two plots
beside them. SmileGAN takes part if it is there: `pip install --no-deps SmileGAN`, since it asks for an old torch.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cohorts
import results
from tqdm.auto import tqdm

from decahub import load_dataset
from decahub.data.abide_anatomy import HEAD_SIZE, list_features
from decahub.data.mpd_synthetic import WITHOUT_SUBTYPES
from decahub.environment import describe_command
from decahub.procedures import mpd_subtyping
from decahub.training import argument, load_recipe


SITES_FILE = "sites.json"


@dataclass
class Arguments:
    output_dir: str = argument("runs/reproduce-mpd-subtyping", "Folder of the runs.")
    results_dir: str = argument("docs/results", "Folder of the results and plots.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR.")
    num_runs: int = argument(100, "Cohorts of each kind for power and false positives.")
    num_compared: int = argument(20, "Cohorts of each kind for the comparison of methods.")
    num_smile_gan: int = argument(4, "Cohorts of each kind for SmileGAN, if its package is installed.")
    judged_kinds: list[str] = argument([], "Kinds of cohorts that get a verdict.")
    compared_kinds: list[str] = argument([], "Kinds of cohorts on which methods are compared.")
    variant: str = argument("paper", "Variant of the autoencoder ensemble.")
    training: dict = argument({}, "Arguments of the training of its members.")
    ensemble: dict = argument({}, "Fields of MpdSubtypingConfig for the linear ensemble that gets a verdict.")
    repetitions: dict = argument({}, "Repetitions of the checks, where not the quick ones.")
    with_sites: bool = argument(True, "Whether to leave sites of abide_anatomy out.")
    sites: dict = argument({}, "Arguments of the run on abide_anatomy.")
    card: str | None = argument(None, "Model folder whose card gets the table and the plot of power.")


def run_once(path: Path, keys: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> None:
    """Append the record of a run, unless the file has it; a line that was cut off by a kill is made again."""
    for record in read_records(path):
        if all(record[name] == value for name, value in keys.items()):
            return
    line = json.dumps({**keys, **compute()})
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def read_records(path: Path) -> list[dict[str, Any]]:
    """Finished runs."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def run_cohorts(arguments: Arguments, path: Path) -> list[dict[str, Any]]:
    """Every run on synthetic cohorts, seed by seed, so that a study that is cut short has seen all kinds."""
    runs = [("judge", kind, seed) for seed in range(arguments.num_runs) for kind in arguments.judged_kinds]
    runs += [("compare", kind, seed) for seed in range(arguments.num_compared) for kind in arguments.compared_kinds]
    if arguments.num_smile_gan and find_spec("SmileGAN") is None:
        print("The package SmileGAN is not installed: methods are compared without it.")
    elif arguments.num_smile_gan:
        runs += [
            ("smile_gan", kind, seed) for seed in range(arguments.num_smile_gan) for kind in arguments.compared_kinds
        ]
    for task, kind, seed in tqdm(runs, desc="Cohorts"):

        def compute(task: str = task, kind: str = kind, seed: int = seed) -> dict[str, Any]:
            cohort = cohorts.make(kind, seed)
            if task == "judge":
                return cohorts.judge(cohort, seed, arguments.repetitions, arguments.ensemble)
            if task == "smile_gan":
                return cohorts.run_smile_gan(cohort, seed)
            return cohorts.compare(cohort, seed, arguments.variant, arguments.training)

        run_once(path, {"task": task, "kind": kind, "seed": seed}, compute)
    return read_records(path)


def run_sites(arguments: Arguments, folder: Path) -> dict[str, Any]:
    """The real table: full report, sites left out, and the nuisance block before and after regression."""
    path = folder / SITES_FILE
    if not path.exists():
        names = list_features(load_dataset("abide_anatomy", arguments.data_dir)["discovery"].column_names)
        run = mpd_subtyping.Arguments(
            dataset="abide_anatomy",
            data_dir=arguments.data_dir,
            train_split="discovery",
            eval_split="heldout_subject",
            output_dir=str(folder / "abide_anatomy"),
            nuisance=["site", "age", "sex", "mean_fd", "anatomy_qc"],
            kinds={"mean_fd": "ordinal", "anatomy_qc": "categorical"},
            variant=arguments.variant,
            feature_extractor={
                "feature_names": names,
                "id_column": "id",
                "further_covariates": [HEAD_SIZE],
                "selection": "mean_or_spread",
                "unseen_site": "pooled",
            },
            **arguments.sites,
        )
        validity = mpd_subtyping.run(run).validity
        left_out = validity["checks"]["leave_site_out"]["values"]
        record = {
            "mean": left_out.get("mean", float("nan")),
            "sites": left_out.get("sites", []),
            "verdict": validity["verdict"],
            "sentences": validity["sentences"],
            "scores": validity["scores"],
            "nuisance": validity["checks"]["nuisance"]["values"],
            "after_regression": validity.get("after_regression", {}).get("verdict"),
            "num_patients": validity["num_patients"],
        }
        path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def main():
    arguments = load_recipe(Arguments)
    folder, target = Path(arguments.output_dir), Path(arguments.results_dir)
    folder.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    with mpd_subtyping.silence("decahub"):  # few features pass in cohorts without subtypes, as they should
        records = run_cohorts(arguments, folder / "runs.jsonl")
    sites = run_sites(arguments, folder) if arguments.with_sites else None
    power = results.write_power(target / "mpd_subtyping_power.json", records, WITHOUT_SUBTYPES, arguments.ensemble)
    recovery = results.write_recovery(target / "mpd_subtyping.json", records, sites, arguments.variant)
    if any(record["task"] == "smile_gan" for record in records):
        peer = results.write_smile_gan(target / "mpd_subtyping_smile_gan.json", records)
        print(f"{results.CLAIM_SMILE_GAN}: {peer}")
    results.draw_power(target / "mpd_subtyping_power.png", records)
    results.draw_recovery(target / "mpd_subtyping_recovery.png", records)
    if arguments.card is not None:
        command = describe_command()
        results.add_to_card(Path(arguments.card), records, WITHOUT_SUBTYPES, command)
    print(f"{results.CLAIM_POWER}: {power}")
    print(f"{results.CLAIM_RECOVERY}: {recovery}")
    if sites is not None:
        print(f"abide_anatomy: {sites['verdict']}; sites left out: {sites['mean']:.2f}")
    seconds = sum(record["cpu_seconds"] for record in records)
    print(f"{len(records)} runs, {seconds / 60:.0f} minutes of CPU")


if __name__ == "__main__":
    main()
