"""Trains PMT-IQA from a recipe, step by step; `decahub train pmt_iqa/synthetic` does the same.

    accelerate launch examples/pmt_iqa/train.py pmt_iqa/synthetic [--learning_rate 1e-3 ...]

`output_dir` then holds `model/`, a folder that `from_pretrained` loads, with scores and a model card, beside the
checkpoints and the log of the run. If it is killed and started again, the run continues where it stopped.
"""

from dataclasses import dataclass

from decahub.hub import CardArguments, save_run
from decahub.procedures import pmt_iqa
from decahub.training import load_recipe


@dataclass
class Arguments(CardArguments, pmt_iqa.Arguments): ...


def main():
    arguments = load_recipe(Arguments)

    # Your own data: a folder as `dataset` in the recipe, or, for datasets that you made in Python with the columns
    # `image` and `score`, `splits = pmt_iqa.QualitySplits(train=..., evaluation=..., monitor=...)`.
    splits = pmt_iqa.load_splits(arguments)

    # The steps of `run` are functions of the same module: `build_model`, `build_update`, `measure` and so on.
    outcome = pmt_iqa.run(arguments, splits)
    if outcome.measurement is None:  # not the main process
        return
    folder = save_run(
        arguments,
        outcome.result,
        outcome.processor,
        outcome.measurement,
        task=outcome.task,
        dataset=outcome.dataset,
        split=outcome.split,
        minutes=outcome.minutes,
        reports=outcome.reports,
    )
    print({name: round(value, 4) for name, value in outcome.measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
