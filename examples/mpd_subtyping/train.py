"""Fits patient subtypes from a recipe, step by step; `decahub train mpd_subtyping/synthetic` does the same.

    python examples/mpd_subtyping/train.py mpd_subtyping/synthetic [--seed 1 ...]

`output_dir` then holds `model/`, a folder that `from_pretrained` loads, with scores and a model card, and
`subtype_report.html`, beside the checkpoints and the log of the run. If it is killed and started again, the run
continues where it stopped.
"""

from dataclasses import dataclass

from decahub.hub import CardArguments, save_run
from decahub.procedures import mpd_subtyping
from decahub.training import load_recipe


@dataclass
class Arguments(CardArguments, mpd_subtyping.Arguments): ...


def main():
    arguments = load_recipe(Arguments)

    # Your own table: a CSV file as `dataset` in the recipe, or `mpd_subtyping.Cohort(train=..., test=...)` with
    # columns as arrays by name.
    cohort = mpd_subtyping.load_cohort(arguments)
    outcome = mpd_subtyping.run(arguments, cohort)

    print(f"{outcome.validity['verdict']}: {outcome.validity['sentences'][0]}")
    print(f"Report: {outcome.report}")
    folder = save_run(
        arguments,
        outcome.result,
        outcome.processor,
        outcome.measurement,
        task=outcome.task,
        dataset=outcome.dataset,
        split=outcome.split,
        minutes=outcome.minutes,
        images=outcome.images,
    )
    if outcome.measurement is not None:
        print({name: round(value, 4) for name, value in outcome.measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
