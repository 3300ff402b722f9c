"""Compares progressive weights of the two tasks with constant ones and with the score alone, over several seeds.

    accelerate launch examples/pmt_iqa/reproduce.py pmt_iqa/reproduce

All runs of a seed start from the same weights and see the same crops in the same order. Each run is kept in
`output_dir`; started again, the script goes on where it was. The result goes to `docs/results/pmt_iqa.json`.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from decahub.evaluation import Comparison, build_row, run_once, write_comparison
from decahub.procedures import pmt_iqa
from decahub.training import argument, load_recipe


SCHEDULES = ("progressive", "constant", "score_only")
SRCC = "SRCC"
CLAIM = "Progressive weights predict quality better than constant weights and than the score alone"


@dataclass
class Arguments(pmt_iqa.Arguments):
    seeds: list[int] = argument([0, 1, 2], "One run of each schedule for each seed.")
    num_bootstrap: int = argument(1000, "Resamples of the test images for the intervals of a run.")
    results: str = argument("docs/results/pmt_iqa.json", "File of the result.")


def run(schedule: str, seed: int, folder: Path, arguments: Arguments) -> dict:
    """Scores of one schedule after one run."""
    fields = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(pmt_iqa.Arguments)}
    config = {**arguments.config, "task_schedule": schedule}
    outcome = pmt_iqa.run(pmt_iqa.Arguments(**{**fields, "config": config, "seed": seed, "output_dir": str(folder)}))
    intervals = pmt_iqa.measure_intervals(
        arguments, outcome.result.model, outcome.processor, pmt_iqa.load_splits(arguments).evaluation
    )
    return {**outcome.measurement.scores, **intervals, "minutes": outcome.result.minutes, "steps": outcome.result.step}


def summarize(schedule: str, runs: list[dict], arguments: Arguments) -> dict:
    return build_row(
        schedule,
        arguments.dataset,
        SRCC,
        [run["srcc"] for run in runs],
        arguments.seeds,
        split=arguments.eval_split,
        checkpoint="last step",
        steps=runs[0]["steps"],
        batch_size=arguments.per_device_train_batch_size,
        minutes=sum(run["minutes"] for run in runs),
    )


def main():
    arguments = load_recipe(Arguments)
    # Seed by seed, so that a run that is cut short has compared something.
    runs = {schedule: [] for schedule in SCHEDULES}
    for seed in arguments.seeds:
        for schedule, finished in runs.items():
            folder = Path(arguments.output_dir) / f"{schedule}-seed{seed}"
            finished.append(run_once(folder, partial(run, schedule, seed, folder, arguments)))
    verdict = write_comparison(
        arguments.results,
        method="pmt_iqa",
        claim=CLAIM,
        comparisons=[Comparison(arguments.dataset, SRCC, SCHEDULES[0], other) for other in SCHEDULES[1:]],
        rows=[summarize(schedule, finished, arguments) for schedule, finished in runs.items()],
    )
    print(f"{CLAIM}: {verdict}")


if __name__ == "__main__":
    main()
